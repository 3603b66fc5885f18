defmodule Mlx.Compiler.Loop do
  @moduledoc false

  # Loops whose number of iterations is known when they are compiled, such as those over
  # ranges: an integer starts at a number, is compared with a number, and has a number
  # added to it. The engine counts for itself then and computes no condition.

  alias Mlx.Graph
  alias Mlx.Lowering.{Control, Creation}
  alias Nx.Defn.Expr
  alias Nx.Tensor, as: T

  @comparisons [:less, :less_equal, :greater, :greater_equal]
  @mirrored %{
    less: :greater,
    less_equal: :greater_equal,
    greater: :less,
    greater_equal: :less_equal
  }

  @doc """
  The position of the counter in the state and `{times, start, step, type}`, or `nil`.
  """
  def count(initial, condition, body) do
    with {comparison, at, bound} <- comparison(condition),
         %T{type: {kind, bits} = type} = first when kind in [:s, :u] and bits >= 8 <-
           Enum.at(initial, at),
         start when is_integer(start) <- number(first),
         step when is_integer(step) <- step(Enum.at(body, at), at),
         times when is_integer(times) <- times(comparison, start, step, bound),
         true <- fits?(start + times * step, type) do
      {at, {times, start, step, type}}
    else
      _ -> nil
    end
  end

  @doc """
  The nodes of the state after the loop.
  """
  def repeat({at, {times, start, step, type} = count}, state, params, body) do
    {counter, params} = List.pop_at(params, at)
    others = List.delete_at(state, at)
    outputs = List.delete_at(body.outputs, at)
    program = Graph.program(outputs, params ++ body.inputs ++ [counter])
    last = Creation.full(start + times * step, type)

    others
    |> Control.repeat(program, count, body.inputs)
    |> List.insert_at(at, last)
  end

  defp comparison(%T{data: %Expr{op: op, args: [left, right]}}) when op in @comparisons do
    case {parameter(left), number(right), number(left), parameter(right)} do
      {at, bound, _, _} when is_integer(at) and is_integer(bound) -> {op, at, bound}
      {_, _, bound, at} when is_integer(at) and is_integer(bound) -> {@mirrored[op], at, bound}
      _ -> nil
    end
  end

  defp comparison(_condition), do: nil

  defp step(%T{data: %Expr{op: :add, args: [left, right]}}, at) do
    case {parameter(left), parameter(right)} do
      {^at, _} -> number(right)
      {_, ^at} -> number(left)
      _ -> nil
    end
  end

  defp step(%T{data: %Expr{op: :subtract, args: [left, right]}}, at) do
    step = number(right)
    if parameter(left) == at and is_integer(step), do: -step
  end

  defp step(_expr, _at), do: nil

  defp times(:less, start, step, bound) when step > 0, do: steps(bound - start, step)
  defp times(:less_equal, start, step, bound) when step > 0, do: steps(bound + 1 - start, step)
  defp times(:greater, start, step, bound) when step < 0, do: steps(start - bound, -step)

  defp times(:greater_equal, start, step, bound) when step < 0,
    do: steps(start + 1 - bound, -step)

  defp times(_comparison, _start, _step, _bound), do: nil

  defp steps(distance, step), do: max(0, div(distance + step - 1, step))

  # A counter that wraps goes on where this one would stop.
  defp fits?(last, {:s, bits}), do: last in (-2 ** (bits - 1))..(2 ** (bits - 1) - 1)
  defp fits?(last, {:u, bits}), do: last in 0..(2 ** bits - 1)
  defp fits?(_last, _type), do: false

  defp parameter(%T{data: %Expr{op: :parameter, args: [at]}}), do: at
  defp parameter(_expr), do: nil

  # One that its type doesn't hold is another number.
  defp number(%T{shape: {}, type: type, data: %Expr{op: :constant, args: [number]}})
       when is_integer(number),
       do: if(fits?(number, type), do: number)

  defp number(_expr), do: nil
end
