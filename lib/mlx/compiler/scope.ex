defmodule Mlx.Compiler.Scope do
  @moduledoc false

  # What a scope makes of its inputs, with its steps in order. `inputs` are the nodes it
  # doesn't make itself.

  alias Mlx.Graph

  defstruct inputs: [], outputs: [], steps: []

  @doc """
  The nodes from outside that a scope uses, its parameters not among them.
  """
  def free(%__MODULE__{outputs: outputs, steps: steps}, params, outside?) do
    made = Enum.flat_map(steps, & &1.results)
    seen = Map.new(params ++ made, &{Graph.key(&1), true})
    roots = outputs ++ Enum.flat_map(steps, & &1.operands)
    {found, _seen} = Enum.reduce(roots, {[], seen}, &free_of(&1, &2, outside?))
    Enum.reverse(found)
  end

  defp free_of(node, {found, seen}, outside?) do
    key = Graph.key(node)

    if is_map_key(seen, key) do
      {found, seen}
    else
      seen = Map.put(seen, key, true)

      if outside?.(node),
        do: {[node | found], seen},
        else: Enum.reduce(node.operands, {found, seen}, &free_of(&1, &2, outside?))
    end
  end
end
