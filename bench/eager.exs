defmodule Mlx.Bench.Eager do
  @moduledoc false

  # What single operations are compared on.

  import Mlx.Bench.Transformer, only: [random: 1, softmax: 1]
  alias Mlx.Bench.Transformer

  def cases do
    # Made by the host, so that the operands cost the same on every backend.
    {a, b} = {random({256}), random({256})}
    big = random({16 * 1024 * 1024})
    big_binary = Nx.to_binary(big)
    m = random({1024, 1024})
    {x, w} = Transformer.inputs()
    {image, pooled} = {random({8, 56, 56, 64}), random({8, 112, 112, 64})}
    kernels = random({64, 3, 3, 64})

    million = Nx.sin(Nx.iota({2 ** 20}, type: :f32))
    places = {2 ** 20} |> Nx.iota(type: :s64) |> Nx.multiply(7919) |> Nx.remainder(2 ** 20)
    places = Nx.as_type(places, :s32)
    half = m[0..511]
    square = Nx.reshape(big, {4096, 4096})
    rows = Nx.reshape(million, {1024, 1024})
    order = places |> Nx.reshape({1024, 1024}) |> Nx.remainder(1024)
    positive = Nx.greater(square, 0)
    definite = half |> Nx.dot([1], half, [1]) |> Nx.divide(1024) |> Nx.add(Nx.eye(512))
    tensors = [a, b, big, m, x, million, places, image, pooled, kernels, definite]
    Mlx.eval(List.to_tuple([w, square, rows, order, positive | tensors]))

    [
      {"add_256_and_read", fn -> Nx.to_binary(Nx.add(a, b)) end},
      {"chain_100_eager_and_read", fn -> Nx.to_binary(chain(a, b)) end},
      {"block_eager_and_read", fn -> Nx.to_binary(Transformer.block(x, w)) end},
      {"read_64mb", fn -> Nx.to_binary(big) end},
      {"write_64mb", fn -> big_binary |> Nx.from_binary(:f32) |> Mlx.eval() end},
      {"matmul_1024_f32", fn -> Mlx.eval(Nx.dot(m, m)) end},
      {"cholesky_512_f32", fn -> Mlx.eval(Nx.LinAlg.cholesky(definite)) end},
      {"sort_1m_f32", fn -> Mlx.eval(Nx.sort(million)) end},
      {"gather_1m_f32", fn -> Mlx.eval(Nx.take(million, places)) end},
      {"take_along_axis_1m_f32", fn -> Mlx.eval(Nx.take_along_axis(rows, order, axis: 1)) end},
      {"top_10_of_1024x1024_f32", fn -> Mlx.eval(Nx.top_k(rows, k: 10)) end},
      {"fft_1m_f32", fn -> Mlx.eval(Nx.fft(million)) end},
      {"add_16m", fn -> Mlx.eval(Nx.add(big, big)) end},
      {"exp_16m", fn -> Mlx.eval(Nx.exp(big)) end},
      {"select_16m", fn -> Mlx.eval(Nx.select(positive, square, square)) end},
      {"clip_16m", fn -> Mlx.eval(Nx.clip(big, -1.0, 1.0)) end},
      {"softmax_4096x4096", fn -> Mlx.eval(softmax(square)) end},
      {"sum_16m", fn -> Mlx.eval(Nx.sum(big)) end},
      {"sum_rows_4096x4096", fn -> Mlx.eval(Nx.sum(square, axes: [1])) end},
      {"sum_columns_4096x4096", fn -> Mlx.eval(Nx.sum(square, axes: [0])) end},
      {"argmax_16m", fn -> Mlx.eval(Nx.argmax(big)) end},
      {"cumulative_sum_16m", fn -> Mlx.eval(Nx.cumulative_sum(big)) end},
      {"conv_8x56x56x64", fn -> Mlx.eval(conv(image, kernels)) end},
      {"window_max_8x112x112x64", fn -> Mlx.eval(window_max(pooled)) end}
    ]
  end

  @doc """
  What the scheduler pays for a call, which Python has no match for.
  """
  def calls do
    {a, b} = {random({256}), random({256})}
    square = Nx.reshape(random({256}), {16, 16})
    metadata = %{shape: {256}, type: {:f, 32}, byte_size: 1024, device: :cpu}
    taken = %{duration: 1, nodes: 1}

    [
      {"enqueue_add", fn -> Nx.add(a, b) end},
      {"enqueue_sum", fn -> Nx.sum(a) end},
      {"enqueue_reshape", fn -> Nx.reshape(a, {16, 16}) end},
      {"enqueue_dot", fn -> Nx.dot(square, square) end},
      {"enqueue_slice", fn -> Nx.slice(a, [3], [100]) end},
      {"telemetry_span",
       fn -> :telemetry.span([:mlx, :to_binary], metadata, fn -> {:ok, metadata} end) end},
      {"telemetry_hit", fn -> :telemetry.execute([:mlx, :compile, :hit], taken, metadata) end}
    ]
  end

  # Channels last, as MLX has them.
  defp conv(image, kernels) do
    order = [0, 3, 1, 2]

    permutations = [
      input_permutation: order,
      kernel_permutation: order,
      output_permutation: order
    ]

    Nx.conv(image, kernels, [padding: :same] ++ permutations)
  end

  defp window_max(x), do: Nx.window_max(x, {1, 3, 3, 1}, strides: [1, 2, 2, 1])

  def chain(a, b), do: Enum.reduce(1..100, a, fn _, acc -> Nx.add(acc, b) end)
end
