defmodule Mlx.Lowering do
  @moduledoc false

  # The one place where Nx's operations become rows of the engine's op table. The
  # backend and the compiler both call `lower/3`, with the arguments of the callback
  # of `Nx.Backend` and a `Mlx.Graph` node in the place of each tensor.

  alias Mlx.Lowering.{Creation, Elementwise, Indexing, Linalg, Reduction, Shape}

  @families [Creation, Elementwise, Indexing, Linalg, Reduction, Shape]

  for family <- @families, op <- family.ops() do
    def lower(unquote(op), out, args), do: unquote(family).lower(unquote(op), out, args)
  end

  @ops Enum.flat_map(@families, & &1.ops())

  @doc """
  The operations that can be lowered.
  """
  def ops, do: @ops

  unused = Mlx.Graph.table() -- Enum.flat_map(@families, & &1.rows())

  if unused != [] do
    raise CompileError,
      file: __ENV__.file,
      line: __ENV__.line,
      description: "rows of the op table that no lowering uses: #{inspect(unused)}"
  end
end
