defmodule Mlx.Graph do
  @moduledoc false

  # Operations as nodes of a graph. A lowering is a function from nodes to nodes, so
  # it is the same whether its result is run at once or appended to a program.
  # The macro `op` checks a row's name and attributes against the engine's op table
  # when the lowering is compiled, and remembers which rows are used.

  alias __MODULE__, as: Graph

  @enforce_keys [:id, :type, :shape]
  defstruct [:id, :row, :type, :shape, operands: [], attributes: [], result: 0, results: 1]

  @type t :: %Graph{
          # A unique reference, or what an input is known by: the register in an eager
          # operation.
          id: reference | term,
          row: atom,
          type: Nx.Type.t(),
          shape: tuple,
          operands: [t],
          attributes: [term],
          # Which of the row's results this is; nodes of one row share its id.
          result: non_neg_integer,
          results: non_neg_integer
        }

  # What constants are made of, and how many elements one has that is made once rather
  # than at every run.
  @cheap [:full, :arange, :eye, :cast, :reshape, :broadcast_to, :stack]
  @kept 4096

  # As many a number may be given, which takes no memory. The engine takes the result for a
  # small one.
  @viewed 65_536

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
    use_row!(row, operands, attributes, 1, __CALLER__)

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

  @doc """
  The nodes of a row with several results, of which each has a type and a shape.
  """
  defmacro ops(row, operands, attributes \\ [], results) do
    count = if is_list(results), do: length(results)
    use_row!(row, operands, attributes, count, __CALLER__)

    quote do
      results = unquote(results)

      node = %Mlx.Graph{
        id: make_ref(),
        row: unquote(row),
        operands: unquote(operands),
        attributes: unquote(attributes),
        type: nil,
        shape: nil,
        results: length(results)
      }

      for {{type, shape}, result} <- Enum.with_index(results) do
        %{node | type: type, shape: shape, result: result}
      end
    end
  end

  defp use_row!(row, operands, attributes, results, env) do
    check_row!(row, operands, attributes, results, env)
    Module.put_attribute(env.module, :mlx_rows, row)
  end

  defp check_row!(row, operands, attributes, results, env) do
    entry = Map.get(@table, row) || compile_error(env, "the op table has no row #{inspect(row)}")

    if is_list(operands) and entry.operands not in [nil, length(operands)] do
      compile_error(env, "#{row} takes #{entry.operands} operands")
    end

    if entry.results != results do
      compile_error(env, "#{row} has #{entry.results} results")
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

  def input(id, type, shape), do: %Graph{id: id, type: type, shape: shape}

  @doc """
  The node with its inputs in registers further on.
  """
  def shift(node, 0), do: node
  def shift(%Graph{id: id} = node, by) when is_integer(id), do: %{node | id: id + by}

  def shift(%Graph{} = node, by),
    do: %{node | id: make_ref(), operands: Enum.map(node.operands, &shift(&1, by))}

  @doc """
  What tells a node from all others.
  """
  def key(%Graph{id: id, result: result}), do: {id, result}

  @doc """
  Whether a node stands for something that is made elsewhere.
  """
  def input?(%Graph{row: row}), do: row == nil

  @doc """
  Whether a node is made from nothing, at no cost worth mentioning, and small enough to
  be kept.
  """
  def constant?(%Graph{row: :broadcast_to, operands: [%Graph{shape: {}} = number]} = node),
    do: Tuple.product(node.shape) <= @viewed and constant?(number)

  def constant?(%Graph{row: row, operands: operands, shape: shape}) do
    row in @cheap and Tuple.product(shape) <= @kept and Enum.all?(operands, &constant?/1)
  end

  @doc """
  What nodes have in common that are made of the same in the same way.
  """
  def content(%Graph{row: nil} = node), do: key(node)

  def content(%Graph{row: row, operands: operands, attributes: attributes, result: result}),
    do: {row, Enum.map(operands, &content/1), attributes, result}

  @doc """
  The program, as an attribute of an instruction, that makes nodes of other nodes. An input
  may be several nodes, which are the same.
  """
  def program(nodes, inputs) do
    registers =
      for {same, at} <- Enum.with_index(inputs), node <- List.wrap(same), into: %{} do
        {key(node), at}
      end

    count = length(inputs)
    state = {[], count, Map.put(registers, :rows, %{})}
    {outputs, {instructions, _next, _known}} = visit_all(nodes, state)
    {count, Enum.reverse(instructions), outputs}
  end

  @doc """
  Whether a node is the only result of a row on all inputs in their order, as those of most
  eager operations are.
  """
  def single?(%Graph{id: id, operands: operands, results: 1}, inputs) when is_reference(id),
    do: in_order?(operands, 0, inputs)

  def single?(%Graph{}, _inputs), do: false

  defp in_order?([%Graph{id: at} | operands], at, inputs), do: in_order?(operands, at + 1, inputs)
  defp in_order?(operands, at, inputs), do: operands == [] and at == inputs

  @doc """
  Instructions for nodes, in the order they can run, and the registers of their values.
  """
  def flatten(nodes, inputs) do
    {registers, {instructions, _next, _known}} = visit_all(nodes, {[], inputs, %{}})
    {Enum.reverse(instructions), registers}
  end

  defp visit_all([], state), do: {[], state}

  defp visit_all([node | nodes], state) do
    {register, state} = visit(node, state)
    {registers, state} = visit_all(nodes, state)
    {[register | registers], state}
  end

  defp visit(%Graph{id: id}, state) when is_integer(id), do: {id, state}

  defp visit(%Graph{id: id, result: result} = node, {_, _, known} = state) do
    input = {id, result}

    case known do
      %{^id => first} ->
        {first + result, state}

      %{^input => register} ->
        {register, state}

      %{} ->
        {operands, state} = visit_all(node.operands, state)
        add({node.row, operands, node.attributes}, node, state)
    end
  end

  # In a program, what is the same runs once.
  defp add(instruction, node, {instructions, next, %{rows: rows} = known}) do
    case rows do
      %{^instruction => first} ->
        {first + node.result, {instructions, next, Map.put(known, node.id, first)}}

      %{} ->
        known = %{known | rows: Map.put(rows, instruction, next)}
        append(instruction, node, {instructions, next, known})
    end
  end

  defp add(instruction, node, state), do: append(instruction, node, state)

  defp append(instruction, node, {instructions, next, known}) do
    state = {[instruction | instructions], next + node.results, Map.put(known, node.id, next)}
    {next + node.result, state}
  end

  @doc """
  How many results an instruction has. A row without a number of them gives as many as
  its last program.
  """
  def results({row, _operands, attributes}) do
    @table[row].results || attributes |> Enum.filter(&program?/1) |> List.last() |> outputs()
  end

  @doc """
  Whether an attribute is a program.
  """
  def program?({inputs, instructions, _registers})
      when is_integer(inputs) and is_list(instructions),
      do: true

  def program?(_attribute), do: false

  @doc """
  How many instructions a program has, those of its programs included.
  """
  def count({_inputs, instructions, _registers}) do
    Enum.reduce(instructions, 0, fn {_row, _operands, attributes}, count ->
      inside = for attribute <- attributes, program?(attribute), do: count(attribute)
      count + 1 + Enum.sum(inside)
    end)
  end

  defp outputs({_inputs, _instructions, registers}), do: length(registers)
end
