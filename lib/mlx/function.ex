defmodule Mlx.Function do
  @moduledoc false

  # A function of scalar tensors as instructions. It is called once, with tensors that
  # stand for any scalar; what it does to them is noted. Because each operation is one
  # on single elements, the instructions then run on whole arrays.

  alias Mlx.{Backend, Downcast, Graph, Lowering}
  alias Mlx.Lowering.Narrow
  alias Nx.Tensor, as: T

  @enforce_keys [:program, :captured, :type]
  defstruct [:program, :captured, :type]

  @type t :: %__MODULE__{
          # As an attribute of an instruction.
          program: {pos_integer, [tuple], [non_neg_integer]},
          # Tensors that are operands after the parameters.
          captured: [Nx.Tensor.t()],
          # Of the array of its result.
          type: Nx.Type.t()
        }

  @element_wise Lowering.Elementwise.ops() ++ [:constant, :as_type, :bitcast]
  @idle_on_scalars [:reshape, :squeeze, :broadcast, :transpose, :reverse]
  # Only expressions have these.
  @inputs [:parameter, :tensor]
  @possible @element_wise ++ @idle_on_scalars ++ @inputs

  @captured {__MODULE__, :captured}
  @device {__MODULE__, :device}

  @doc """
  A function of an element and an accumulator, which has the type of its result, for a
  device.
  """
  def fold(fun, element, accumulator, device, attempts \\ 4) do
    case trace(fun, [element, accumulator], device) do
      {^accumulator, function} -> function
      {type, _function} when attempts > 1 -> fold(fun, element, type, device, attempts - 1)
      _ -> raise ArgumentError, "the function gives another type whenever it is applied again"
    end
  end

  defp trace(fun, types, device) do
    parameters = for {type, at} <- Enum.with_index(types), do: scalar(at, type, device)
    backend = Process.put(Nx.Shared.backend_pdict_key(), {Backend, device: :traced})
    outer = Process.put(@captured, [])
    outer_device = Process.put(@device, device)

    try do
      result = fun |> apply(parameters) |> Nx.to_tensor()
      node = to_node(result)
      captured = Enum.reverse(Process.get(@captured))
      inputs = length(types) + length(captured)
      {instructions, registers} = Graph.flatten([node], inputs)
      program = {inputs, instructions, registers}
      stored = Downcast.stored(result.type, device)
      {result.type, %__MODULE__{program: program, captured: captured, type: stored}}
    after
      restore(Nx.Shared.backend_pdict_key(), backend)
      restore(@captured, outer)
      restore(@device, outer_device)
    end
  end

  defp restore(key, nil), do: Process.delete(key)
  defp restore(key, value), do: Process.put(key, value)

  defp scalar(register, type, device) do
    node = Graph.input(register, Downcast.stored(type, device), {})
    wrap(%T{type: type, shape: {}, names: []}, node)
  end

  @doc """
  Notes an operation on tensors that stand for others.
  """
  def run(op, out, args) do
    check!(op, out)
    wrap(out, lower(op, out, args, Process.get(@device)))
  end

  defp lower(:bitcast, %{type: type}, [%T{type: from} = tensor], device),
    do: tensor |> to_node() |> Narrow.bitcast(from, type, Downcast.stored(type, device))

  defp lower(op, out, args, device),
    do: Lowering.lower(op, Downcast.out(out, device), Enum.map(args, &to_node/1))

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
    stored = Downcast.stored(type, Process.get(@device))

    case Enum.find_index(captured, &(&1.data == data and &1.type == type)) do
      nil ->
        Process.put(@captured, [tensor | captured])
        Graph.input(2 + length(captured), stored, {})

      at ->
        Graph.input(1 + length(captured) - at, stored, {})
    end
  end
end
