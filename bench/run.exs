# Times Mlx on the cases of bench/python_mlx.py and prints the ratios of one run:
#
#     OPENBLAS_NUM_THREADS=1 mix run bench/run.exs [--rounds N] [--python PYTHON] [--only CASE ...]
#
# Without --python it times Mlx alone. PYTHON needs the packages mlx and numpy, and
# mlx-cpu or mlx-cuda-13, of the MLX version that Mlx uses. On Linux it is given the
# BLAS that Mlx uses, so that both sides multiply matrices alike.

defmodule Bench do
  @warm_up 50
  @budget_us 1_000_000
  @most 20_000

  @doc """
  The median of as many runs as fit the time, in microseconds.
  """
  def median_us(run) do
    for _ <- 1..@warm_up, elapsed(run) < @budget_us / @warm_up, do: :ok
    times = run |> times([], System.monotonic_time(:microsecond) + @budget_us) |> Enum.sort()
    Enum.at(times, div(length(times), 2))
  end

  defp times(run, acc, deadline) do
    acc = [elapsed(run) | acc]
    late = System.monotonic_time(:microsecond) > deadline
    if late or length(acc) >= @most, do: acc, else: times(run, acc, deadline)
  end

  defp elapsed(run) do
    started = System.monotonic_time(:nanosecond)
    run.()
    (System.monotonic_time(:nanosecond) - started) / 1000
  end

  def python_us(python, name, device) do
    script = Path.expand("python_mlx.py", __DIR__)
    args = [script, "--device", "#{device}", "--only", name]
    {output, 0} = System.cmd(python, args, env: blas())
    [_, us] = Regex.run(~r/"#{name}": ([0-9.e+-]+)/, output)
    us |> Float.parse() |> elem(0)
  end

  defp blas do
    case Path.wildcard("priv/runtime/mlx_*.libs/libblas*") do
      [blas | _] -> [{"LD_PRELOAD", Path.expand(blas)}]
      [] -> []
    end
  end
end

defmodule Cases do
  def all do
    # Made by the host, so that the operands cost the same on every backend.
    random = fn shape -> random(shape) end
    {a, b} = {random.({256}), random.({256})}
    big = random.({16 * 1024 * 1024})
    big_binary = Nx.to_binary(big)
    m = random.({1024, 1024})
    {x, w} = transformer()
    {image, pooled} = {random.({8, 56, 56, 64}), random.({8, 112, 112, 64})}
    kernels = random.({64, 3, 3, 64})

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
      {"block_eager_and_read", fn -> Nx.to_binary(block(x, w)) end},
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
  What the scheduler pays for queueing an operation, which Python has no match for.
  """
  def enqueue do
    {a, b} = {random({256}), random({256})}
    square = Nx.reshape(random({256}), {16, 16})

    [
      {"add", fn -> Nx.add(a, b) end},
      {"sum", fn -> Nx.sum(a) end},
      {"reshape", fn -> Nx.reshape(a, {16, 16}) end},
      {"dot", fn -> Nx.dot(square, square) end},
      {"slice", fn -> Nx.slice(a, [3], [100]) end}
    ]
  end

  @doc """
  The input and the weights of a transformer block.
  """
  def transformer do
    w =
      for shape <- List.duplicate({256, 256}, 4) ++ [{256, 1024}, {1024, 256}],
          do: Nx.multiply(random(shape), 0.02)

    {random({128, 256}), List.to_tuple(w)}
  end

  def random(shape) do
    count = Tuple.product(shape)

    for(_ <- 1..min(count, 4096), into: <<>>, do: <<:rand.normal()::float-32-native>>)
    |> :binary.copy(div(count + 4095, 4096))
    |> binary_part(0, count * 4)
    |> Nx.from_binary(:f32)
    |> Nx.reshape(shape)
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

  # A pre-norm transformer block: batch 1, sequence 128, hidden 256, 4 heads.
  def block(x, {wq, wk, wv, wo, up, down}) do
    h = norm(x)

    [q, k, v] =
      for w <- [wq, wk, wv],
          do: h |> Nx.dot(w) |> Nx.reshape({128, 4, 64}) |> Nx.transpose(axes: [1, 0, 2])

    scores = q |> Nx.dot([2], [0], k, [2], [0]) |> Nx.multiply(0.125)
    heads = scores |> softmax() |> Nx.dot([2], [0], v, [1], [0])
    x = Nx.add(x, heads |> Nx.transpose(axes: [1, 0, 2]) |> Nx.reshape({128, 256}) |> Nx.dot(wo))
    h = x |> norm() |> Nx.dot(up)
    inner = Nx.multiply(0.7978845608, Nx.add(h, Nx.multiply(0.044715, Nx.pow(h, 3))))
    h = Nx.multiply(Nx.multiply(0.5, h), Nx.add(1, Nx.tanh(inner)))
    Nx.add(x, Nx.dot(h, down))
  end

  defp norm(y) do
    centred = Nx.subtract(y, Nx.mean(y, axes: [-1], keep_axes: true))
    variance = Nx.mean(Nx.multiply(centred, centred), axes: [-1], keep_axes: true)
    Nx.multiply(centred, Nx.rsqrt(Nx.add(variance, 1.0e-5)))
  end

  defp softmax(x) do
    exp = Nx.exp(Nx.subtract(x, Nx.reduce_max(x, axes: [-1], keep_axes: true)))
    Nx.divide(exp, Nx.sum(exp, axes: [-1], keep_axes: true))
  end
end

Code.require_file("compiled.exs", __DIR__)
Code.require_file("fast.exs", __DIR__)

{opts, only} =
  OptionParser.parse!(System.argv(),
    strict: [python: :string, rounds: :integer, only: :boolean, device: :string]
  )

device = String.to_existing_atom(opts[:device] || "#{Mlx.Device.default()}")
rounds = opts[:rounds] || 3
Nx.default_backend({Mlx.Backend, device: device})

median = fn list -> list |> Enum.sort() |> Enum.at(div(length(list), 2)) end
pad = &String.pad_leading(to_string(&1), 12)
us = &pad.(:erlang.float_to_binary(&1 / 1, decimals: 1))

IO.puts("device #{device}, medians of #{rounds} rounds, microseconds\n")
IO.puts("#{String.pad_trailing("case", 28)}#{pad.("Mlx")}#{pad.("Python")}#{pad.("ratio")}")

cases = Cases.all() ++ CompiledCases.all() ++ FastCases.all()

for {name, run} <- cases, only == [] or name in only do
  # The two sides take turns, so that a change of the machine's speed hits both.
  pairs =
    for _ <- 1..rounds,
        do: {Bench.median_us(run), opts[:python] && Bench.python_us(opts[:python], name, device)}

  {mlx, python} = Enum.unzip(pairs)

  compared =
    if opts[:python] do
      ratio = median.(Enum.map(pairs, fn {mlx, python} -> mlx / python end))
      us.(median.(python)) <> pad.(:erlang.float_to_binary(ratio, decimals: 2))
    end

  IO.puts("#{String.pad_trailing(name, 28)}#{us.(median.(mlx))}#{compared}")
end

if only == [] or "enqueue" in only do
  IO.puts("\nqueueing one operation, microseconds of the scheduler\n")

  for {name, run} <- Cases.enqueue() do
    thousand = fn -> for(_ <- 1..1000, do: run.()) end

    # The lowest of several medians, so that a while in which the machine has other
    # work does not count.
    medians =
      for _ <- 1..10 do
        median.(
          for _ <- 1..30 do
            Mlx.synchronize(device)
            {time, _} = :timer.tc(thousand)
            time / 1000
          end
        )
      end

    time = :erlang.float_to_binary(Enum.min(medians), decimals: 2)
    IO.puts("#{String.pad_trailing(name, 28)}#{pad.(time)}")
  end
end
