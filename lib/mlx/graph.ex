defmodule Mlx.Graph do
  @moduledoc false

  # Operations as nodes of a graph. A lowering is a function from nodes to nodes, so
  # it is the same whether its result is run at once or appended to a program.
  # The macro `op` checks a row's name and attributes against the engine's op table
  # when the lowering is compiled, and remembers which rows are used.

  alias __MODULE__, as: Graph

  @enforce_keys [:id, :type, :shape]
  defstruct [:id, :row, :type, :shape, operands: [], attributes: []]

  @type t :: %Graph{
          # The register of an input, a unique reference otherwise.
          id: non_neg_integer | reference,
          row: atom,
          type: Nx.Type.t(),
          shape: tuple,
          operands: [t],
          attributes: [term]
        }

  @table Map.new(Mlx.Native.op_table(), fn {name, operands, attributes, results} ->
           {name, %{operands: operands, attributes: attributes, results: results}}
         end)

  defmacro __using__(_opts) do
    Module.register_attribute(__CALLER__.module, :mlx_rows, accumulate: true)

    quote do
      import Mlx.Graph
      @before_compile Mlx.Graph
    end
  end

  defmacro __before_compile__(env) do
    rows = env.module |> Module.get_attribute(:mlx_rows) |> Enum.uniq()
    quote(do: def(rows, do: unquote(rows)))
  end

  @doc """
  A node that runs `row` on `operands`.
  """
  defmacro op(row, operands, attributes \\ [], type, shape) do
    row = Macro.expand(row, __CALLER__)
    check_row!(row, operands, attributes, __CALLER__)
    Module.put_attribute(__CALLER__.module, :mlx_rows, row)

    quote do
      %Mlx.Graph{
        id: make_ref(),
        row: unquote(row),
        operands: unquote(operands),
        attributes: unquote(attributes),
        type: unquote(type),
        shape: unquote(shape)
      }
    end
  end

  defp check_row!(row, operands, attributes, env) do
    entry = Map.get(@table, row) || compile_error(env, "the op table has no row #{inspect(row)}")

    if is_list(operands) and entry.operands not in [nil, length(operands)] do
      compile_error(env, "#{row} takes #{entry.operands} operands")
    end

    if is_list(attributes) and length(attributes) != length(entry.attributes) do
      compile_error(env, "#{row} takes the attributes #{inspect(entry.attributes)}")
    end
  end

  defp compile_error(env, description) do
    raise CompileError, file: env.file, line: env.line, description: description
  end

  @doc """
  The names of all rows.
  """
  def table, do: Map.keys(@table)

  def input(register, type, shape), do: %Graph{id: register, type: type, shape: shape}

  @doc """
  Instructions for a node, in the order they can run, and the register of its value.
  """
  def flatten(%Graph{id: id}, _inputs) when is_integer(id), do: {[], id}

  # Most eager operations are one row on tensors, and need no numbering.
  def flatten(%Graph{operands: operands} = node, inputs) do
    case input_registers(operands, []) do
      :none -> number(node, inputs)
      registers -> {[{node.row, registers, node.attributes}], inputs}
    end
  end

  defp input_registers([], acc), do: Enum.reverse(acc)

  defp input_registers([%Graph{id: id} | operands], acc) when is_integer(id),
    do: input_registers(operands, [id | acc])

  defp input_registers(_operands, _acc), do: :none

  defp number(node, inputs) do
    {register, {instructions, _registers}} = visit(node, {[], %{next: inputs}})
    {Enum.reverse(instructions), register}
  end

  defp visit(%Graph{id: id}, state) when is_integer(id), do: {id, state}

  defp visit(%Graph{id: id} = node, {_, registers} = state) do
    case registers do
      %{^id => register} ->
        {register, state}

      %{} ->
        {operands, {instructions, registers}} = Enum.map_reduce(node.operands, state, &visit/2)
        register = registers.next
        instruction = {node.row, operands, node.attributes}
        registers = registers |> Map.put(id, register) |> Map.put(:next, register + 1)
        {register, {[instruction | instructions], registers}}
    end
  end
end
