# Compares the most memory that a compiled transformer of 12 layers takes, and a training
# step of it, with what Python MLX takes for the same:
#
#     OPENBLAS_NUM_THREADS=1 mix run bench/memory.exs [--python PYTHON]

Code.require_file("transformer.exs", __DIR__)

defmodule Mlx.Bench.Memory do
  import Nx.Defn
  alias Mlx.Bench.Transformer

  @layers 12

  def weights do
    for _ <- 1..@layers do
      for shape <- Transformer.shapes(),
          do: Nx.multiply(Nx.iota(shape, type: :f32), 1.0e-8)
    end
    |> Enum.map(&List.to_tuple/1)
    |> List.to_tuple()
  end

  def forward(x, layers) do
    silu = &Transformer.silu/1

    layers
    |> Tuple.to_list()
    |> Enum.reduce(x, &Transformer.block(&2, &1, silu))
  end

  def step(x, layers) do
    {loss, grads} = value_and_grad(layers, &Nx.mean(forward(x, &1)))
    updated = Nx.Defn.Composite.flatten_list([layers, grads])
    {weights, grads} = Enum.split(updated, div(length(updated), 2))
    update = fn w, g -> Nx.subtract(w, Nx.multiply(0.1, g)) end
    {loss, weights |> Enum.zip_with(grads, update) |> List.to_tuple()}
  end
end

alias Mlx.Bench.Memory
{opts, []} = OptionParser.parse!(System.argv(), strict: [python: :string])
Nx.default_backend({Mlx.Backend, device: :cpu})
x = Nx.iota({128, 256}, type: :f32) |> Nx.divide(32_768)
weights = Memory.weights()
Mlx.eval({x, weights})

python =
  if opts[:python] do
    {output, 0} = System.cmd(opts[:python], [Path.expand("memory_mlx.py", __DIR__)])
    output |> String.split() |> Enum.map(&String.to_integer/1)
  else
    [nil, nil]
  end

for {name, fun, theirs} <- [
      {"forward", &Memory.forward/2, hd(python)},
      {"training step", &Memory.step/2, List.last(python)}
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
