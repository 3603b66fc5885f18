# Compares the most memory that a compiled transformer of 12 layers takes, and a training
# step of it, with what Python MLX takes for the same:
#
#     OPENBLAS_NUM_THREADS=1 mix run bench/memory.exs [--python PYTHON]

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

{opts, []} = OptionParser.parse!(System.argv(), strict: [python: :string])
Nx.default_backend({Mlx.Backend, device: :cpu})
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
