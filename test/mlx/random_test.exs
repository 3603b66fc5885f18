defmodule Mlx.RandomTest do
  @moduledoc """
  `Nx.Random` gives the numbers of `Nx.BinaryBackend` for the same key.
  """

  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples
  alias Nx.Random

  # Sums and products of floats, each rounded.
  @close [ulps: 16, scale: 1.0]

  describe "keys" do
    test "fold tensors in" do
      assert_same(&Random.fold_in/2, [key(3), tensor([[1, 99], [1234, 2 ** 32 + 5]], :u64)])
    end

    test "may be vectorized" do
      keys = Nx.vectorize(Random.split(key(7), parts: 3), :keys)
      assert_same(&Random.split/1, [keys])
      assert_same(&elem(Random.uniform(&1, shape: {2, 2}), 0), [keys])
      assert_same(&elem(Random.randint(&1, 0, 100, shape: {5}), 0), [keys])
    end
  end

  describe "randint" do
    for type <- integers() do
      test "of #{type}" do
        options = [type: unquote(type), shape: {40}]
        assert_same(&Random.randint(&1, 3, 100, options), [key(42)])
        {low, high} = bounds(unquote(type))
        bounds = [tensor(low, unquote(type)), tensor(high, unquote(type))]
        assert_same(&Random.randint(&1, &2, &3, options), [key(43) | bounds])
      end
    end

    test "of one number" do
      assert_same(&Random.randint(&1, -5, 6), [key(1)])
      assert_same(&Random.randint_split(&1, 0, 10, shape: {3}, names: [:x]), [key(2)])
    end
  end

  describe "uniform" do
    for type <- floats() ++ [:c64] do
      test "of #{type}" do
        options = [type: unquote(type), shape: {5, 20}]
        assert_same(&Random.uniform(&1, options), [key(42)])
        # Nx.BinaryBackend cuts bf16 off where others round.
        assert_same(&Random.uniform(&1, -2.5, 7, options), [key(43)], scale: 8.0)
        assert_same(&Random.uniform_split(&1, 0, 1, options), [key(44)])
      end
    end

    test "of an odd number of them" do
      for size <- [1, 3, 17], do: assert_same(&Random.uniform(&1, shape: {size}), [key(size)])
    end
  end

  describe "normal" do
    for type <- floats() ++ [:c64] do
      test "of #{type}" do
        options = [type: unquote(type), shape: {500}]
        assert_same(&Random.normal(&1, options), [key(42)], @close)
        assert_same(&Random.normal(&1, 3, 0.5, options), [key(43)], @close)
      end
    end
  end

  test "gumbel" do
    for type <- floats() do
      assert_same(
        &Random.gumbel(&1, shape: {200}, type: Nx.Type.normalize!(type)),
        [key(42)],
        @close
      )
    end
  end

  test "multivariate_normal" do
    mean = tensor([1.0, -2.0, 0.5], :f32)
    covariance = tensor([[2.0, 0.5, 0.25], [0.5, 1.0, 0.125], [0.25, 0.125, 0.75]], :f32)

    for shape <- [{}, {4}, {2, 3}] do
      fun = &Random.multivariate_normal(&1, &2, &3, shape: shape)
      assert_same(fun, [key(5), mean, covariance], @close)
    end
  end

  describe "shuffle" do
    for axis <- 0..1, independent <- [false, true] do
      test "along axis #{axis}, #{if independent, do: "each on its own", else: "all alike"}" do
        options = [axis: unquote(axis), independent: unquote(independent)]
        assert_same(&Random.shuffle(&1, &2, options), [key(9), sample(:s32, {12, 15})])
      end
    end

    test "of many" do
      assert_same(&Random.shuffle/2, [key(10), sample(:u8, {3000})])
    end
  end

  describe "choice" do
    for options <- [[samples: 7], [samples: 7, replace: false], [samples: 3, axis: 1]] do
      test "with #{inspect(options)}" do
        x = sample(:s32, {4, 5})
        assert_same(&Random.choice(&1, &2, unquote(options)), [key(11), x])
        size = if unquote(options[:axis]), do: 5, else: 20
        chances = Nx.divide(Nx.add(Nx.iota({size}, backend: Nx.BinaryBackend), 1), 210)
        args = [key(12), x, chances]
        assert_same(&Random.choice(&1, &2, &3, unquote(options)), args)
      end
    end
  end

  defp key(seed), do: Nx.with_default_backend(Nx.BinaryBackend, fn -> Random.key(seed) end)
end
