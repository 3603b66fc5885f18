defmodule Mlx.Function do
  @moduledoc false

  # A function of scalar tensors as instructions. It is called once, with tensors that
  # stand for any scalar; what it does to them is noted. Because each operation is one
  # on single elements, the instructions then run on whole arrays.

  alias Mlx.{Backend, Graph, Lowering}
  alias Mlx.Lowering.Narrow
  alias Nx.Tensor, as: T

  @enforce_keys [:program, :captured, :type]
  defstruct [:program, :captured, :type]

  @type t :: %__MODULE__{
          # As an attribute of an instruction.
          program: {pos_integer, [tuple], [non_neg_integer]},
          # Tensors that are operands after the parameters.
          captured: [Nx.Tensor.t()],
          type: Nx.Type.t()
        }

  @element_wise Lowering.Elementwise.ops() ++ [:constant, :as_type, :bitcast]
  @idle_on_scalars [:reshape, :squeeze, :broadcast, :transpose, :reverse]
  # Only expressions have these.
  @inputs [:parameter, :tensor]
  @possible @element_wise ++ @idle_on_scalars ++ @inputs

  @captured {__MODULE__, :captured}

  @doc """
  A function of an element and an accumulator, which has the type of its result.
  """
  def fold(fun, element, accumulator, attempts \\ 4) do
    case trace(fun, [element, accumulator]) do
      %{type: ^accumulator} = function -> function
      %{type: type} when attempts > 1 -> fold(fun, element, type, attempts - 1)
      _ -> raise ArgumentError, "the function gives another type whenever it is applied again"
    end
  end

  defp trace(fun, types) do
    parameters = for {type, at} <- Enum.with_index(types), do: scalar(at, type)
    backend = Process.put(Nx.Shared.backend_pdict_key(), {Backend, device: :traced})
    outer = Process.put(@captured, [])

    try do
      result = fun |> apply(parameters) |> Nx.to_tensor()
      node = to_node(result)
      captured = Enum.reverse(Process.get(@captured))
      inputs = length(types) + length(captured)
      {instructions, registers} = Graph.flatten([node], inputs)
      program = {inputs, instructions, registers}
      %__MODULE__{program: program, captured: captured, type: result.type}
    after
      restore(Nx.Shared.backend_pdict_key(), backend)
      restore(@captured, outer)
    end
  end

  defp restore(key, nil), do: Process.delete(key)
  defp restore(key, value), do: Process.put(key, value)

  defp scalar(register, type) do
    wrap(%T{type: type, shape: {}, names: []}, Graph.input(register, Narrow.wide(type), {}))
  end

  @doc """
  Notes an operation on tensors that stand for others.
  """
  def run(op, out, args) do
    check!(op, out)
    wrap(out, Lowering.lower(op, out, Enum.map(args, &to_node/1)))
  end

  @doc """
  Raises unless the operation means the same on single elements and on slices.
  """
  def check!(op, out) do
    if out.shape != {} or op not in @possible do
      raise Mlx.Error, unsupported("Nx.#{op}")
    end
  end

  @doc """
  The error of reading a value that is not there yet.
  """
  def read_error, do: Mlx.Error.exception(unsupported("reading a value"))

  defp unsupported(what) do
    [
      kind: :unsupported,
      op: "reduce",
      message:
        "#{what} is not possible in a function given to Nx.reduce/4 or Nx.window_reduce/5, " <>
          "which may contain element-wise operations on scalars only"
    ]
  end

  defp wrap(out, node), do: %{out | data: %Backend{ref: node, device: :traced}}

  defp to_node(%T{data: %Backend{ref: %Graph{} = node}}), do: node
  defp to_node(%T{shape: {}} = tensor), do: capture(tensor)

  defp to_node(%T{shape: shape}),
    do: raise(Mlx.Error, unsupported("a tensor of shape #{inspect(shape)}"))

  defp to_node(other), do: other

  defp capture(%T{data: data, type: type} = tensor) do
    captured = Process.get(@captured)

    case Enum.find_index(captured, &(&1.data == data and &1.type == type)) do
      nil ->
        Process.put(@captured, [tensor | captured])
        Graph.input(2 + length(captured), Narrow.wide(type), {})

      at ->
        Graph.input(1 + length(captured) - at, Narrow.wide(type), {})
    end
  end
end
