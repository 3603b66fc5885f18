defmodule Mlx.Bench.Transformer do
  @moduledoc false

  # The transformer block of the benchmarks: pre-norm, batch 1, sequence 128, hidden 256,
  # 4 heads.

  @weights List.duplicate({256, 256}, 4) ++ [{256, 1024}, {1024, 256}]

  @doc """
  The input and the weights of a block.
  """
  def inputs do
    weights = for shape <- @weights, do: Nx.multiply(random(shape), 0.02)
    {random({128, 256}), List.to_tuple(weights)}
  end

  @doc """
  The shapes of the weights of a block.
  """
  def shapes, do: @weights

  @doc """
  Numbers that are made by the host, so that they cost the same on every backend.
  """
  def random(shape) do
    count = Tuple.product(shape)

    for(_ <- 1..min(count, 4096), into: <<>>, do: <<:rand.normal()::float-32-native>>)
    |> :binary.copy(div(count + 4095, 4096))
    |> binary_part(0, count * 4)
    |> Nx.from_binary(:f32)
    |> Nx.reshape(shape)
  end

  @doc """
  The block, with an activation between its last two products.
  """
  def block(x, {wq, wk, wv, wo, up, down}, activation \\ &gelu/1) do
    h = norm(x)

    [q, k, v] =
      for w <- [wq, wk, wv],
          do: h |> Nx.dot(w) |> Nx.reshape({128, 4, 64}) |> Nx.transpose(axes: [1, 0, 2])

    scores = q |> Nx.dot([2], [0], k, [2], [0]) |> Nx.multiply(0.125)
    heads = scores |> softmax() |> Nx.dot([2], [0], v, [1], [0])
    x = Nx.add(x, heads |> Nx.transpose(axes: [1, 0, 2]) |> Nx.reshape({128, 256}) |> Nx.dot(wo))
    Nx.add(x, x |> norm() |> Nx.dot(up) |> activation.() |> Nx.dot(down))
  end

  def gelu(h) do
    inner = Nx.multiply(0.7978845608, Nx.add(h, Nx.multiply(0.044715, Nx.pow(h, 3))))
    Nx.multiply(Nx.multiply(0.5, h), Nx.add(1, Nx.tanh(inner)))
  end

  def silu(h), do: Nx.multiply(h, Nx.sigmoid(h))

  def softmax(x) do
    exp = Nx.exp(Nx.subtract(x, Nx.reduce_max(x, axes: [-1], keep_axes: true)))
    Nx.divide(exp, Nx.sum(exp, axes: [-1], keep_axes: true))
  end

  def norm(y) do
    centred = Nx.subtract(y, Nx.mean(y, axes: [-1], keep_axes: true))
    variance = Nx.mean(Nx.multiply(centred, centred), axes: [-1], keep_axes: true)
    Nx.multiply(centred, Nx.rsqrt(Nx.add(variance, 1.0e-5)))
  end
end
