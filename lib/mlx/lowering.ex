defmodule Mlx.Lowering do
  @moduledoc false

  # The one place where Nx's operations become rows of the engine's op table. The
  # backend and the compiler both call `lower/3`, with the arguments of the callback
  # of `Nx.Backend` and a `Mlx.Graph` node in the place of each tensor. A family module
  # has `ops/0` and `lower/3`, and for blocks `blocks/0` and `lower_block/3`.

  alias Mlx.Lowering.{Convolution, Creation, Elementwise, FFT, Indexing, Linalg}
  alias Mlx.Lowering.{Reduction, Shape, Sort, Window}

  @families [Convolution, Creation, Elementwise, FFT, Indexing, Linalg] ++
              [Reduction, Shape, Sort, Window]

  for family <- @families, op <- family.ops() do
    def lower(unquote(op), out, args), do: unquote(family).lower(unquote(op), out, args)
  end

  for family <- @families,
      function_exported?(family, :blocks, 0),
      block <- family.blocks() do
    def lower_block(%unquote(block){} = block, out, args) do
      unquote(family).lower_block(block, out, args)
    end
  end

  @doc """
  The nodes of a block of Nx's, or `nil` for one that is run by its own definition.
  """
  def lower_block(_block, _out, _args), do: nil

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
