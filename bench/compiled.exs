defmodule Mlx.Bench.Compiled do
  @moduledoc false

  # What Mlx.Compiler is compared on. A case that ends in _fused has `fuse: true`.

  import Nx.Defn
  import Mlx.Bench.Transformer, only: [random: 1]
  alias Mlx.Bench.{Eager, Transformer}

  def cases do
    {a, b} = {random({256}), random({256})}
    mlp = for shape <- [{32, 784}, {784, 128}, {128, 10}], do: random(shape)
    {x, w} = Transformer.inputs()
    {state, batch} = training()
    Mlx.eval({a, b, List.to_tuple(mlp), x, w, state, batch})

    chain = &Eager.chain/2
    step = &step/2

    [
      {"chain_100_compiled_and_read", read(chain, [a, b], fuse: true)},
      {"chain_100_jit_and_read", jit_and_read(chain, [a, b], fuse: true)},
      {"chain_100_unfused_and_read", read(chain, [a, b], [])},
      {"mlp_compiled_and_read", read(&mlp/3, mlp, [])},
      {"mlp_fused_and_read", read(&mlp/3, mlp, fuse: true)},
      {"while_1000_and_read", read(&loop/1, [a], [])},
      {"while_1000_fused_and_read", read(&loop/1, [a], fuse: true)},
      {"block_compiled_and_read", read(&Transformer.block/2, [x, w], [])},
      {"block_fused_and_read", read(&Transformer.block/2, [x, w], fuse: true)},
      {"training_step", training_step(step, state, batch, [])},
      {"training_step_fused", training_step(step, state, batch, fuse: true)},
      {"training_100_steps", training_steps(step, state, batch, [])},
      {"training_100_steps_fused", training_steps(step, state, batch, fuse: true)}
    ]
  end

  defp read(fun, args, opts) do
    compiled = Nx.Defn.compile(fun, args, [compiler: Mlx.Compiler] ++ opts)
    fn -> compiled |> apply(args) |> Nx.to_binary() end
  end

  defp jit_and_read(fun, args, opts) do
    fn -> fun |> Nx.Defn.jit_apply(args, [compiler: Mlx.Compiler] ++ opts) |> Nx.to_binary() end
  end

  defp training_step(step, state, batch, opts) do
    compiled = Nx.Defn.compile(step, [state, batch], [compiler: Mlx.Compiler] ++ opts)

    fn -> Mlx.eval(compiled.(state, batch)) end
  end

  # Nobody waits until the end, so that a step is queued while another one runs.
  defp training_steps(step, state, batch, opts) do
    compiled = Nx.Defn.compile(step, [state, batch], [compiler: Mlx.Compiler] ++ opts)

    fn ->
      1..100
      |> Enum.reduce({nil, state}, fn _, {_loss, state} -> compiled.(state, batch) end)
      |> Mlx.eval()
    end
  end

  defn mlp(x, u, v) do
    logits = x |> Nx.dot(u) |> Nx.max(0) |> Nx.dot(v)
    exp = Nx.exp(logits - Nx.reduce_max(logits, axes: [-1], keep_axes: true))
    exp / Nx.sum(exp, axes: [-1], keep_axes: true)
  end

  defn loop(x) do
    {_, x} =
      while {i = 0, x}, i < 1000 do
        {i + 1, x * 1.0001 + 1}
      end

    x
  end

  # The digits' network, 64 to 128 to 10, and Adam's moments.
  defp training do
    shapes = [{64, 128}, {128}, {128, 10}, {10}]
    params = for shape <- shapes, do: Nx.multiply(random(shape), 0.1)
    zeros = for shape <- shapes, do: Nx.broadcast(Nx.tensor(0.0), shape)
    classes = Nx.remainder(Nx.iota({128, 1}), 10)
    one_hot = Nx.as_type(Nx.equal(classes, Nx.iota({1, 10})), :f32)
    state = List.to_tuple(Enum.map([params, zeros, zeros], &List.to_tuple/1) ++ [Nx.tensor(1.0)])
    {state, {random({128, 64}), one_hot}}
  end

  defn step({params, m, v, t}, batch) do
    {loss, grads} = value_and_grad(params, &loss(&1, batch))
    updated = adam(params, grads, m, v, t)
    {loss, updated}
  end

  deftransformp adam(params, grads, m, v, t) do
    columns = Enum.map([params, grads, m, v], &Tuple.to_list/1)
    updated = Enum.zip_with(columns, fn [p, g, m, v] -> moments(p, g, m, v, t) end)
    [params, m, v] = for i <- 0..2, do: updated |> Enum.map(&elem(&1, i)) |> List.to_tuple()
    {params, m, v, Nx.add(t, 1)}
  end

  defnp moments(p, g, m, v, t) do
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    step = m / (1 - Nx.pow(0.9, t)) / (Nx.sqrt(v / (1 - Nx.pow(0.999, t))) + 1.0e-8)
    {p - 0.001 * step, m, v}
  end

  defnp loss({w1, b1, w2, b2}, {x, y}) do
    logits = x |> Nx.dot(w1) |> Nx.add(b1) |> Nx.max(0) |> Nx.dot(w2) |> Nx.add(b2)
    Nx.mean(Nx.logsumexp(logits, axes: [-1]) - Nx.sum(logits * y, axes: [-1]))
  end
end
