defmodule Mlx.Lowering.Fast do
  @moduledoc false

  use Mlx.Graph

  alias Mlx.Fast.RMSNorm

  def ops, do: []

  def blocks, do: [RMSNorm]

  # MLX computes these in single precision at most.
  def lower_block(_block, %{type: {:f, 64}}, _args), do: nil

  def lower_block(%RMSNorm{eps: eps}, out, args) do
    op(:rms_norm, args, [eps], out.type, out.shape)
  end
end
