# Compares the most memory that a compiled transformer of 12 layers takes, and a training
# step of it, with what Python MLX takes for the same:
#
#     OPENBLAS_NUM_THREADS=1 mix run bench/memory.exs [--python PYTHON]
#
# Then what four batches of BERT base take (12 layers, width 768, 8 sequences of 128 tokens),
# against one batch, when they run one after the other: eagerly, compiled and in a serving.
# `--only batches` runs only these.

defmodule Transformer do
  import Nx.Defn

  @layers 12

  def weights do
    for _ <- 1..@layers do
      for shape <- List.duplicate({256, 256}, 4) ++ [{256, 1024}, {1024, 256}],
          do: Nx.multiply(Nx.iota(shape, type: :f32), 1.0e-8)
    end
    |> Enum.map(&List.to_tuple/1)
    |> List.to_tuple()
  end

  def forward(x, layers), do: layers |> Tuple.to_list() |> Enum.reduce(x, &block/2)

  def step(x, layers) do
    {loss, grads} = value_and_grad(layers, &Nx.mean(forward(x, &1)))
    updated = Nx.Defn.Composite.flatten_list([layers, grads])
    {weights, grads} = Enum.split(updated, div(length(updated), 2))
    update = fn w, g -> Nx.subtract(w, Nx.multiply(0.1, g)) end
    {loss, weights |> Enum.zip_with(grads, update) |> List.to_tuple()}
  end

  defp block({wq, wk, wv, wo, up, down}, x) do
    h = norm(x)

    [q, k, v] =
      for w <- [wq, wk, wv],
          do: h |> Nx.dot(w) |> Nx.reshape({128, 4, 64}) |> Nx.transpose(axes: [1, 0, 2])

    scores = q |> Nx.dot([2], [0], k, [2], [0]) |> Nx.multiply(0.125)
    exp = Nx.exp(Nx.subtract(scores, Nx.reduce_max(scores, axes: [-1], keep_axes: true)))

    heads =
      Nx.dot(Nx.divide(exp, Nx.sum(exp, axes: [-1], keep_axes: true)), [2], [0], v, [1], [0])

    x = Nx.add(x, heads |> Nx.transpose(axes: [1, 0, 2]) |> Nx.reshape({128, 256}) |> Nx.dot(wo))
    h = x |> norm() |> Nx.dot(up)
    Nx.add(x, h |> Nx.multiply(Nx.sigmoid(h)) |> Nx.dot(down))
  end

  defp norm(y) do
    centred = Nx.subtract(y, Nx.mean(y, axes: [-1], keep_axes: true))
    variance = Nx.mean(Nx.multiply(centred, centred), axes: [-1], keep_axes: true)
    Nx.multiply(centred, Nx.rsqrt(Nx.add(variance, 1.0e-5)))
  end
end

defmodule Bert do
  # As large as Bumblebee's base models.
  @layers 12
  @width 768
  @heads 12

  def weights do
    shapes = List.duplicate({@width, @width}, 4) ++ [{@width, 4 * @width}, {4 * @width, @width}]

    for _ <- 1..@layers do
      shapes |> Enum.map(&Nx.multiply(Nx.iota(&1, type: :f32), 1.0e-9)) |> List.to_tuple()
    end
    |> List.to_tuple()
  end

  def batch(at),
    do: Nx.iota({8, 128, @width}, type: :f32) |> Nx.remainder(17 + at) |> Nx.divide(17)

  def forward(x, layers), do: layers |> Tuple.to_list() |> Enum.reduce(x, &block/2) |> pool()

  defp pool(x), do: Nx.mean(x, axes: [1])

  defp block({wq, wk, wv, wo, up, down}, x) do
    [q, k, v] = for w <- [wq, wk, wv], do: x |> Nx.dot(w) |> heads()
    scores = q |> Nx.dot([3], [0, 1], k, [3], [0, 1]) |> Nx.divide(8)
    exp = Nx.exp(Nx.subtract(scores, Nx.reduce_max(scores, axes: [-1], keep_axes: true)))
    weights = Nx.divide(exp, Nx.sum(exp, axes: [-1], keep_axes: true))
    mixed = weights |> Nx.dot([3], [0, 1], v, [2], [0, 1]) |> Nx.transpose(axes: [0, 2, 1, 3])
    x = x |> Nx.add(mixed |> Nx.reshape(x) |> Nx.dot(wo)) |> norm()
    h = Nx.dot(x, up)
    gelu = Nx.multiply(Nx.multiply(h, 0.5), Nx.add(Nx.erf(Nx.divide(h, 1.4142)), 1))
    x |> Nx.add(Nx.dot(gelu, down)) |> norm()
  end

  defp heads(x) do
    {batch, length, width} = Nx.shape(x)
    x = Nx.reshape(x, {batch, length, @heads, div(width, @heads)})
    Nx.transpose(x, axes: [0, 2, 1, 3])
  end

  defp norm(y) do
    centred = Nx.subtract(y, Nx.mean(y, axes: [-1], keep_axes: true))
    variance = Nx.mean(Nx.multiply(centred, centred), axes: [-1], keep_axes: true)
    Nx.multiply(centred, Nx.rsqrt(Nx.add(variance, 1.0e-5)))
  end
end

defmodule Batches do
  # Each case in a process of its own, with nothing left over from the one before.
  def compare(name, weights, run) do
    one = peak(fn -> run.(1) end)
    four = peak(fn -> run.(4) end)

    held =
      weights |> Tuple.to_list() |> Enum.flat_map(&Tuple.to_list/1) |> Enum.map(&Nx.byte_size/1)

    above = fn bytes -> div(bytes - Enum.sum(held), 1_048_576) end

    IO.puts(
      "#{name}: one batch #{above.(one)} MiB above the weights, four #{above.(four)} MiB, " <>
        "ratio #{Float.round((four - Enum.sum(held)) / (one - Enum.sum(held)), 2)}, " <>
        "with the weights #{Float.round(four / one, 2)}"
    )
  end

  defp peak(fun) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    Mlx.synchronize(:cpu)
    Mlx.Memory.reset_peak()
    fn -> fun.() end |> Task.async() |> Task.await(:infinity)
    Mlx.Memory.stats().peak
  end
end

{opts, []} = OptionParser.parse!(System.argv(), strict: [python: :string, only: :string])
Nx.default_backend({Mlx.Backend, device: :cpu})

if opts[:only] != "batches" do
  x = Nx.iota({128, 256}, type: :f32) |> Nx.divide(32_768)
  weights = Transformer.weights()
  Mlx.eval({x, weights})

  python =
    if opts[:python] do
      {output, 0} = System.cmd(opts[:python], [Path.expand("memory_mlx.py", __DIR__)])
      output |> String.split() |> Enum.map(&String.to_integer/1)
    else
      [nil, nil]
    end

  for {name, fun, theirs} <- [
        {"forward", &Transformer.forward/2, hd(python)},
        {"training step", &Transformer.step/2, List.last(python)}
      ] do
    compiled = Nx.Defn.compile(fun, [x, weights], compiler: Mlx.Compiler, device: :cpu)

    run = fn ->
      Mlx.eval(compiled.(x, weights))
      :ok
    end

    Enum.each(1..3, fn _ -> run.() end)
    :erlang.garbage_collect()
    Mlx.synchronize(:cpu)
    Process.sleep(50)
    held = Mlx.Memory.stats().active
    Mlx.Memory.reset_peak()
    run.()
    ours = Mlx.Memory.stats().peak - held
    ratio = if theirs, do: "; Python MLX #{theirs}, ratio #{Float.round(ours / theirs, 3)}"
    IO.puts("#{name}: #{ours} bytes above #{held}#{ratio}")
  end
end

weights = Mlx.eval(Bert.weights())
:erlang.garbage_collect()
backend = {Mlx.Backend, device: :cpu}

forwards = fn forward ->
  fn times ->
    Nx.default_backend(backend)
    for at <- 1..times, do: at |> Bert.batch() |> forward.(weights) |> Nx.to_binary()
  end
end

compiled = Nx.Defn.jit(&Bert.forward/2, compiler: Mlx.Compiler, device: :cpu)
Batches.compare("eager", weights, forwards.(&Bert.forward/2))
Batches.compare("compiled", weights, forwards.(compiled))

serving =
  Nx.Serving.new(
    fn options ->
      run = Nx.Defn.jit(&Bert.forward/2, options)
      fn batch -> run.(Nx.Defn.jit_apply(&Function.identity/1, [batch], options), weights) end
    end,
    compiler: Mlx.Compiler,
    device: :cpu
  )

{:ok, _} =
  Nx.Serving.start_link(name: Bert.Serving, serving: serving, batch_size: 8, batch_timeout: 10)

Batches.compare("serving", weights, fn times ->
  Nx.default_backend(backend)

  for at <- 1..times do
    batch = Nx.Batch.concatenate([Bert.batch(at)])
    Bert.Serving |> Nx.Serving.batched_run(batch) |> Nx.to_binary()
  end
end)
