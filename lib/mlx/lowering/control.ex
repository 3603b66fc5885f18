defmodule Mlx.Lowering.Control do
  @moduledoc false

  # Branches and loops. Their programs see nothing but what is handed to them, so what
  # they use from outside comes after the predicate or the state, the same for both.

  use Mlx.Graph

  # Nx has no callbacks for these; the compiler calls the functions below.
  def ops, do: []

  @doc """
  The nodes that one of two programs gives, by a predicate.
  """
  def cond(predicate, [on_true, on_false], captured, signatures) do
    ops(:cond, [predicate | captured], [on_true, on_false], signatures)
  end

  @doc """
  The state after `body` has run as long as `condition` holds.
  """
  def while(state, [condition, body], captured) do
    ops(:while, state ++ captured, [condition, body], signatures(state))
  end

  @doc """
  The state after `body` has run `times` times, with a counter of type `type`.
  """
  def repeat(state, body, {times, start, step, type}, captured) do
    ops(:repeat, state ++ captured, [body, times, start, step, type], signatures(state))
  end

  defp signatures(state), do: Enum.map(state, &{&1.type, &1.shape})
end
