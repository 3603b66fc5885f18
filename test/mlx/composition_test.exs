defmodule Mlx.CompositionTest do
  @moduledoc """
  What Nx builds of operations: gradients, random numbers, vectorized tensors, containers.
  """

  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples
  import Nx.Defn

  defn mlp(x, %{hidden: {w1, b1}, output: {w2, b2}}) do
    hidden = Nx.max(Nx.dot(x, w1) + b1, 0)
    logits = Nx.dot(hidden, w2) + b2
    logits - Nx.logsumexp(logits, axes: [1], keep_axes: true)
  end

  defn loss(params, x, labels) do
    picked = Nx.take_along_axis(mlp(x, params), Nx.new_axis(labels, 1), axis: 1)
    -Nx.mean(picked)
  end

  defn step(params, x, labels) do
    {loss, gradient} = value_and_grad(params, &loss(&1, x, labels))
    {loss, gradient, descend(params, gradient)}
  end

  defn descend(%{hidden: {w1, b1}, output: {w2, b2}}, %{hidden: {d1, e1}, output: {d2, e2}}) do
    %{hidden: {w1 - 0.1 * d1, b1 - 0.1 * e1}, output: {w2 - 0.1 * d2, b2 - 0.1 * e2}}
  end

  defn smooth(x), do: Nx.sum(Nx.tanh(x) * Nx.sigmoid(x) + Nx.exp(-x * x) - Nx.log(x * x + 1))

  defn reshuffled(x) do
    y = x |> Nx.transpose() |> Nx.reverse(axes: [1]) |> Nx.reshape({6, 2})
    Nx.sum(Nx.concatenate([y, y * y]) * Nx.reduce_max(y, axes: [0]))
  end

  defn counted(x) do
    {_, total} =
      while {i = 0, x}, i < 5 do
        {i + 1, if(Nx.sum(x) > 10, do: x - 1, else: x * 2)}
      end

    total
  end

  describe "under Nx.Defn.Evaluator" do
    test "the gradient of a small network is Nx.BinaryBackend's" do
      assert_same(&step/3, network(), scale: 1.0, ulps: 32)
    end

    test "so are its weights after some steps" do
      train = fn params, x, labels ->
        Enum.reduce(1..5, params, fn _, params -> params |> step(x, labels) |> elem(2) end)
      end

      assert_same(train, network(), scale: 1.0, ulps: 128)
    end

    test "the gradient of element-wise functions is Nx.BinaryBackend's" do
      assert_same(&grad(&1, fn x -> smooth(x) end), [sample(:f32)], scale: 1.0, ulps: 32)
    end

    test "the gradient of shape operations is Nx.BinaryBackend's" do
      assert_same(&grad(&1, fn x -> reshuffled(x) end), [sample(:f32, {3, 4})],
        signed_zero: false
      )
    end

    test "loops and conditions read what they need" do
      assert_same(&counted/1, [tensor([1.0, 2.0], :f32)])
    end

    test "functions are compiled with Nx.Defn.jit" do
      options = [ulps: 32, scale: 1.0, ways: [compiled: Nx.Defn.Evaluator]]
      assert_same(fn x -> smooth(x) end, [sample(:f32)], options)
    end
  end

  describe "Nx.Random" do
    test "keys are Nx.BinaryBackend's" do
      assert_same(fn -> Nx.Random.key(42) end, [])
      assert_same(fn -> Nx.Random.split(Nx.Random.key(42), parts: 3) end, [])
      assert_same(fn -> Nx.Random.fold_in(Nx.Random.key(42), 7) end, [])
    end

    for type <- floats() do
      test "uniform numbers of #{type} are Nx.BinaryBackend's" do
        assert_same(&uniform/1, [unquote(type)])
      end

      test "normal numbers of #{type} are Nx.BinaryBackend's" do
        assert_same(&normal/1, [unquote(type)], scale: 1.0, ulps: 16)
      end
    end

    for type <- [:u8, :u16, :u32, :u64, :s8, :s16, :s32, :s64] do
      test "integers of #{type} are Nx.BinaryBackend's" do
        assert_same(&integers_of/1, [unquote(type)])
      end
    end
  end

  describe "vectorized tensors" do
    test "keep their axes" do
      rows = Nx.vectorize(sample(:f32, {2, 3}), :rows)
      columns = Nx.vectorize(sample(:s32, {4}), :columns)
      assert_same(&Nx.add/2, [rows, 1])
      assert_same(&Nx.multiply/2, [rows, rows])
      assert_same(&Nx.subtract/2, [rows, columns])
      assert_same(&Nx.sum/1, [rows], scale: 1.0)
      assert_same(&Nx.dot/2, [rows, rows], scale: 16.0)
      assert_same(&Nx.argmax/1, [rows])
      assert_same(&Nx.devectorize/1, [rows])
      assert_same(&Nx.concatenate([&1, &2]), [rows, rows])
      assert_same(&Nx.slice/3, [rows, [1], [2]])
      assert_same(&Nx.reshape(&1, {3, 1}), [rows])
    end

    test "of several axes" do
      cube = Nx.vectorize(sample(:f32, {2, 3, 4}), [:a, :b])
      assert_same(&Nx.reduce_max/1, [cube])
      assert_same(&Nx.revectorize(&1, [c: 6], target_shape: {4}), [cube])
    end
  end

  describe "templates and containers" do
    test "templates are Nx's" do
      x = Nx.backend_copy(sample(:f32, {2, 3}, names: [:x, nil]), Mlx.Backend)
      assert Nx.to_template(x) == Nx.template({2, 3}, :f32, names: [:x, nil])
      assert Nx.compatible?(x, sample(:f32, {2, 3}, names: [:x, nil]))
      refute Nx.compatible?(x, sample(:f32, {3, 2}))
    end

    test "containers go in and out" do
      swap = fn {a, %{b: b}} -> %{a: Nx.add(b, 1), b: {a, Nx.sum(b)}} end
      assert_same(&swap.({&1, %{b: &2}}), [sample(:u8), sample(:f32)], scale: 4.0)
    end

    test "serialized tensors come back" do
      x = Nx.backend_copy(sample(:bf16, {2, 3}, names: [:x, nil]), Mlx.Backend)
      assert x |> Nx.serialize() |> IO.iodata_to_binary() |> Nx.deserialize() == binary(x)
      assert {<<_::binary>>, _} = {Nx.to_heatmap(x) |> inspect(), x}
    end
  end

  describe "functions that Nx writes with others" do
    test "are Nx.BinaryBackend's" do
      x = sample(:f32, {4, 5})
      opts = [scale: 1.0, ulps: 16]
      assert_same(&Nx.mean(&1, axes: [0]), [x], opts)
      assert_same(&Nx.variance/1, [x], opts)
      assert_same(&Nx.standard_deviation(&1, axes: [1]), [x], opts)
      assert_same(&Nx.logsumexp(&1, axes: [1]), [x], opts)
      assert_same(&Nx.covariance/1, [x], opts)
      assert_same(&Nx.outer(&1, &1), [x], opts)
      assert_same(&Nx.linspace(&1, 3, n: 7), [0], opts)
      assert_same(&Nx.tril/1, [x])
      assert_same(&Nx.tile(&1, [2, 1]), [x])
      assert_same(&Nx.all_close(&1, &1), [x])
      assert_same(&Nx.logical_not/1, [sample(:s8)])
      assert_same(&Nx.diff/1, [x])
      assert_same(&Nx.LinAlg.norm/1, [x], opts)
      assert_same(&Nx.phase/1, [sample(:c64)], opts)
    end
  end

  defp uniform(type),
    do: 42 |> Nx.Random.key() |> Nx.Random.uniform(-1, 3, shape: {3, 4}, type: type)

  defp normal(type),
    do: 42 |> Nx.Random.key() |> Nx.Random.normal(0, 1, shape: {3, 4}, type: type)

  defp integers_of(type),
    do: 42 |> Nx.Random.key() |> Nx.Random.randint(3, 100, shape: {3, 4}, type: type)

  defp network do
    params = %{
      hidden: {scaled({4, 6}), scaled({6})},
      output: {scaled({6, 3}), scaled({3})}
    }

    [params, sample(:f32, {5, 4}), tensor([0, 2, 1, 1, 0], :s64)]
  end

  defp scaled(shape), do: Nx.divide(sample(:f32, shape, from: 2), 8)

  defp binary(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)
end
