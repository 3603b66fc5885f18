defmodule Mlx.Lowering.Fast do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 2]
  import Mlx.Lowering.Shape, only: [cast: 2, reshape: 2]

  alias Mlx.Fast.{Attention, Cache, GELU, LayerNorm, RMSNorm, RoPE, Softmax, SwiGLU}

  def ops, do: []

  def blocks, do: [Attention, Cache, GELU, LayerNorm, RMSNorm, RoPE, Softmax, SwiGLU]

  def lower_block(%SwiGLU{}, out, [gate, up]) do
    op(:swiglu, [gate, up], out.type, out.shape)
  end

  def lower_block(%Cache{axis: axis}, out, [cache, update, position]) do
    op(:update_cache, [cache, update, position(position)], [axis], out.type, out.shape)
  end

  # MLX computes the others in single precision at most.
  def lower_block(_block, %{type: {:f, 64}}, _args), do: nil

  def lower_block(%Softmax{} = block, out, [x]) do
    op(:softmax, [x], [block.axis, block.precise], out.type, out.shape)
  end

  def lower_block(%GELU{approximate: :none}, out, [x]), do: op(:gelu, [x], out.type, out.shape)

  def lower_block(%GELU{approximate: :tanh}, out, [x]),
    do: op(:gelu_tanh, [x], out.type, out.shape)

  def lower_block(%GELU{approximate: :sigmoid}, out, [x]),
    do: op(:gelu_sigmoid, [x], out.type, out.shape)

  def lower_block(%RMSNorm{eps: eps}, out, args) do
    op(:rms_norm, args, [eps], out.type, out.shape)
  end

  def lower_block(%LayerNorm{} = block, out, args) do
    op(:layer_norm, args, [block.eps, block.weight?, block.bias?], out.type, out.shape)
  end

  # A position for each element of a batch has no kernel.
  def lower_block(%RoPE{position: nil}, _out, [_x, %{shape: {_, _}} | _]), do: nil

  def lower_block(%RoPE{position: nil} = block, out, [x, position | rest]),
    do: rope(block, out, x, cast(position, {:s, 32}), rest)

  def lower_block(%RoPE{position: position} = block, out, [x | rest]),
    do: rope(block, out, x, full(position, {:s, 32}), rest)

  def lower_block(%Attention{position?: true} = block, out, [q, k, v, at | sinks]) do
    attributes = [block.scale, block.sinks?]
    op(:attention_from, [q, k, v, position(at) | sinks], attributes, out.type, out.shape)
  end

  def lower_block(%Attention{} = block, out, [q, k, v | rest]) do
    rest = if block.mask?, do: [mask(hd(rest)) | tl(rest)], else: rest
    attributes = [block.scale, block.causal, block.mask?, block.sinks?]
    op(:attention, [q, k, v | rest], attributes, out.type, out.shape)
  end

  # A narrow one may not hold the sizes it is compared with.
  defp position(%{type: {:s, size}} = position) when size in [32, 64], do: position
  defp position(position), do: cast(position, {:s, 64})

  # The kernels are sure of arrays of four axes only.
  defp rope(block, out, x, position, frequencies) do
    x = reshape(x, four(Tuple.to_list(x.shape)))
    base = block.base || 1.0
    operands = [x, position | Enum.map(frequencies, &periods/1)]
    attributes = [block.dims, block.traditional, base, block.scale]
    op(:rope, operands, attributes, out.type, x.shape) |> reshape(out.shape)
  end

  defp four([length, size]), do: {1, 1, length, size}
  defp four([batch, length, size]), do: {batch, 1, length, size}

  defp four([batch | rest]) do
    {others, [length, size]} = Enum.split(rest, -2)
    {batch, Enum.product(others), length, size}
  end

  defp periods(frequencies) do
    frequencies = cast(frequencies, {:f, 32})
    op(:divide, [full(1, {:f, 32}), frequencies], {:f, 32}, frequencies.shape)
  end

  defp mask(%{type: {:u, 8}} = mask) do
    op(:not_equal, [mask, full(0, {:u, 8})], :bool, mask.shape)
  end

  defp mask(mask), do: mask
end
