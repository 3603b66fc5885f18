# The most memory that four batches of BERT base take (12 layers, width 768, 4 sequences of
# 64 tokens), one after the other, against that of one batch: eagerly, compiled and in a
# serving.
#
#     OPENBLAS_NUM_THREADS=1 mix run bench/batches.exs

Code.require_file("transformer.exs", __DIR__)

defmodule Bert do
  # As large as Bumblebee's base models.

  import Mlx.Bench.Transformer, only: [norm: 1, softmax: 1]

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
    do: Nx.iota({4, 64, @width}, type: :f32) |> Nx.remainder(17 + at) |> Nx.divide(17)

  def forward(x, layers), do: layers |> Tuple.to_list() |> Enum.reduce(x, &block/2) |> pool()

  defp pool(x), do: Nx.mean(x, axes: [1])

  defp block({wq, wk, wv, wo, up, down}, x) do
    [q, k, v] = for w <- [wq, wk, wv], do: x |> Nx.dot(w) |> heads()
    scores = q |> Nx.dot([3], [0, 1], k, [3], [0, 1]) |> Nx.divide(8)

    mixed =
      scores
      |> softmax()
      |> Nx.dot([3], [0, 1], v, [2], [0, 1])
      |> Nx.transpose(axes: [0, 2, 1, 3])

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

Nx.default_backend({Mlx.Backend, device: :cpu})
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
  Nx.Serving.start_link(name: Bert.Serving, serving: serving, batch_size: 4, batch_timeout: 10)

Batches.compare("serving", weights, fn times ->
  Nx.default_backend(backend)

  for at <- 1..times do
    batch = Nx.Batch.concatenate([Bert.batch(at)])
    Bert.Serving |> Nx.Serving.batched_run(batch) |> Nx.to_binary()
  end
end)
