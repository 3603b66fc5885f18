defmodule Mlx.FastTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples
  import Mlx.FastCase
  import Nx.Defn
  alias Mlx.Fast

  doctest Mlx.Fast

  @types [:f32, :f16, :bf16, :f64]
  @close close()

  describe "rms_norm" do
    for type <- @types, shape <- [{5}, {3, 1}, {2, 3, 7}, {1, 2, 3, 600}] do
      test "of #{type}#{inspect(shape)}" do
        x = waves(unquote(type), unquote(Macro.escape(shape)))
        weight = waves(unquote(type), {elem(x.shape, tuple_size(x.shape) - 1)})
        assert_same(&Fast.rms_norm(&1, &2), [x, weight], @close)
        assert_same(&Fast.rms_norm(&1, nil, eps: 0.25), [x], @close)
      end
    end

    test "gives the type of both" do
      for {a, b, out} <- [{:bf16, :f32, :f32}, {:s32, :f32, :f32}, {:s8, :s8, :f32}] do
        type = Fast.rms_norm(small(a), sample(b, {2})).type
        assert type == Nx.Type.normalize!(out)
      end
    end

    test "keeps names and vectorized axes" do
      x = Nx.vectorize(waves(:f32, {2, 3, 4}, names: [:v, :a, :b]), :v)
      assert_same(&Fast.rms_norm(&1, &2), [x, waves(:f32, {4}, names: [:a])], @close)
    end

    test "refuses what has no meaning" do
      x = waves(:f32, {2, 3})

      for {weight, opts, message} <- [
            {waves(:f32, {2}), [], "takes a weight of shape {3}, got: f32{2}"},
            {waves(:f32, {1, 3}), [], "a weight"},
            {Nx.vectorize(waves(:f32, {2, 3}), :v), [], "no vectorized weight"},
            {nil, [epsilon: 1], "unknown keys"},
            {nil, [eps: :small], "takes a number as :eps"},
            {waves(:c64, {3}), [], "no complex numbers"}
          ] do
        refused(message, fn -> Fast.rms_norm(x, weight, opts) end)
      end

      refused("at least 1 axes", fn -> Fast.rms_norm(1.0, nil) end)
    end
  end

  describe "layer_norm" do
    for type <- @types, shape <- [{5}, {2, 3, 7}, {2, 600}] do
      test "of #{type}#{inspect(shape)}" do
        x = waves(unquote(type), unquote(Macro.escape(shape)))
        [a, b] = for _ <- 1..2, do: waves(unquote(type), {elem(x.shape, tuple_size(x.shape) - 1)})
        assert_same(&Fast.layer_norm/3, [x, a, b], @close)
        assert_same(&Fast.layer_norm(&1, nil, &2), [x, b], @close)
        assert_same(&Fast.layer_norm(&1, &2, nil, eps: 1), [x, a], @close)
      end
    end

    test "keeps names and vectorized axes" do
      x = Nx.vectorize(waves(:f32, {2, 3, 4}, names: [:v, :a, :b]), :v)
      assert_same(&Fast.layer_norm(&1, nil, nil), [x], @close)
    end

    test "refuses a bias that does not fit" do
      refused("a bias of shape {3}", fn ->
        Fast.layer_norm(waves(:f32, {2, 3}), nil, waves(:f32, {2}))
      end)
    end
  end

  describe "softmax" do
    for type <- @types, axis <- [0, 1, -1] do
      test "of #{type} along #{axis}" do
        x = waves(unquote(type), {3, 4, 65})
        assert_same(&Fast.softmax(&1, axis: unquote(axis)), [x], @close)
        assert_same(&Fast.softmax(&1, axis: unquote(axis), precise: false), [x], @close)
      end
    end

    test "of numbers that are not finite" do
      x = tensor([[:infinity, 0.0], [:neg_infinity, 0.0], [1.0e30, -1.0e30]], :f32)
      assert_same(&Fast.softmax/1, [x], @close)
    end

    test "along a name, of a vectorized tensor" do
      x = Nx.vectorize(waves(:f32, {2, 3, 4}, names: [:v, :a, :b]), :v)
      assert_same(&Fast.softmax(&1, axis: :a), [x], @close)
    end

    test "refuses what has no meaning" do
      refused("a boolean as :precise", fn -> Fast.softmax(waves(:f32, {2}), precise: 1) end)
      refused("axis", fn -> Fast.softmax(waves(:f32, {2}), axis: 3) end)
      refused("no complex", fn -> Fast.softmax(waves(:c64, {2})) end)
    end
  end

  describe "swiglu" do
    for type <- @types do
      test "of #{type}" do
        args = [waves(unquote(type), {3, 50}), waves(unquote(type), {3, 50}, names: [:a, nil])]
        assert_same(&Fast.swiglu/2, args, @close)
      end
    end

    test "of vectorized tensors and large numbers" do
      x = Nx.vectorize(waves(:f32, {2, 3}), :v)
      assert_same(&Fast.swiglu/2, [x, waves(:f32, {3})], @close)
      assert_same(&Fast.swiglu(&1, &1), [tensor([100.0, -100.0, -700.0], :f32)], @close)
    end

    test "refuses shapes that differ" do
      refused("two tensors of one shape, {2}, got: f32{3}", fn ->
        Fast.swiglu(waves(:f32, {2}), waves(:f32, {3}))
      end)
    end
  end

  describe "gelu" do
    for type <- @types, approximate <- [:none, :tanh, :sigmoid] do
      test "of #{type}, approximated by #{approximate}" do
        x = waves(unquote(type), {3, 50}, names: [:a, nil])
        assert_same(&Fast.gelu(&1, approximate: unquote(approximate)), [x], @close)
      end
    end

    test "of vectorized tensors, of a number and of integers" do
      assert_same(&Fast.gelu/1, [Nx.vectorize(waves(:f32, {2, 3}), :v)], @close)
      assert_same(&Fast.gelu/1, [1.5], @close)
      assert_same(&Fast.gelu/1, [tensor([-2, 0, 3], :s8)], @close)
    end

    test "of numbers that are not finite" do
      x = tensor([:infinity, :neg_infinity, :nan, 1.0e30, -1.0e30, 0.0], :f32)
      assert_same(&Fast.gelu/1, [x], @close)
    end

    # Nx.BinaryBackend has no sigmoid of much larger ones.
    test "of large numbers" do
      x = tensor([200.0, -200.0, 20.0, -20.0], :f32)

      for approximate <- [:tanh, :sigmoid] do
        assert_same(&Fast.gelu(&1, approximate: approximate), [x], @close)
      end
    end

    # A unit of the last place, where `1 + erf` has lost up to all of its digits.
    test "of negative numbers has all digits on a CPU" do
      x = for at <- 0..104, do: -at / 8
      exact = for x <- x, do: x * :math.erfc(-x * :math.sqrt(0.5)) / 2
      x = Nx.tensor(x, type: :f32, backend: {Mlx.Backend, device: :cpu})
      compiled = Nx.Defn.jit(&Fast.gelu/1, compiler: Mlx.Compiler, device: :cpu)

      for got <- [Fast.gelu(x), compiled.(x)],
          {got, exact} <- Enum.zip(Nx.to_flat_list(got), exact) do
        assert abs(got - exact) <= abs(exact) * 2.0 ** -23
      end
    end

    test "refuses what has no meaning" do
      x = waves(:f32, {2})

      refused("one of [:none, :tanh, :sigmoid] as :approximate", fn ->
        Fast.gelu(x, approximate: 1)
      end)

      refused("unknown keys", fn -> Fast.gelu(x, approx: :tanh) end)
      refused("no complex", fn -> Fast.gelu(waves(:c64, {2})) end)
    end
  end

  describe "rope" do
    # Layouts for which MLX has been wrong: three axes, single elements, parts that turn.
    for type <- @types,
        shape <- [{5, 8}, {3, 5, 8}, {3, 1, 8}, {2, 3, 5, 8}, {2, 3, 1, 8}, {2, 3, 2, 5, 8}] do
      test "of #{type}#{inspect(shape)}" do
        x = waves(unquote(type), unquote(Macro.escape(shape)))

        per_batch =
          if Nx.rank(x) > 2, do: [Nx.iota({elem(x.shape, 0)}, backend: Nx.BinaryBackend)]

        for position <- [0, 7, tensor(7, :s64) | per_batch || []],
            opts <- [[], [traditional: true], [dims: 6, traditional: true, scale: 0.5], [dims: 2]] do
          assert_same(&Fast.rope(&1, &2, opts), [x, position], @close)
        end
      end
    end

    test "with frequencies of its own, at any position" do
      x = waves(:f32, {2, 3, 5, 8})
      own = tensor([1.0, 0.5, 0.25, 0.0], :f32)

      for position <- [4, tensor([4, 1], :u8), Nx.iota({2, 5}, backend: Nx.BinaryBackend)],
          traditional <- [true, false] do
        opts = [traditional: traditional]
        assert_same(&Fast.rope(&1, &2, [frequencies: &3] ++ opts), [x, position, own], @close)
      end
    end

    test "is the same for a sequence and for its elements" do
      x = Nx.backend_copy(waves(:f32, {1, 2, 6, 8}), Mlx.Backend)
      whole = Fast.rope(x, 3)

      for at <- 0..5 do
        one = x |> Nx.slice_along_axis(at, 1, axis: 2) |> Fast.rope(Nx.tensor([3 + at]))
        assert_identical(one, Nx.slice_along_axis(whole, at, 1, axis: 2))
      end
    end

    test "of vectorized tensors and positions" do
      x = Nx.vectorize(waves(:f32, {2, 3, 4, 8}, names: [:v, nil, :a, :b]), :v)
      each = Nx.vectorize(tensor([3, 4], :s32), :v)

      for position <- [2, tensor(2, :s32), tensor([1, 2, 3], :s32), each] do
        assert_same(&Fast.rope/2, [x, position], @close)
      end

      assert_same(&Fast.rope/2, [Nx.vectorize(waves(:f32, {2, 4, 8}), :v), each], @close)
    end

    test "refuses what has no meaning" do
      x = waves(:f32, {2, 3, 5, 8})

      for {position, opts, message} <- [
            {0, [dims: 3], "an even number from 2 to 8 as :dims"},
            {0, [dims: 10], "an even number from 2 to 8 as :dims"},
            {0, [base: 0], "a positive number as :base"},
            {0, [base: 10, frequencies: waves(:f32, {4})], "either :base or :frequencies"},
            {0, [frequencies: waves(:f32, {8})], "frequencies of shape {4}"},
            {1.5, [], "an integer of 32 bits"},
            {2 ** 40, [], "an integer of 32 bits"},
            {tensor(1.0, :f32), [], "integers as the position"},
            {tensor([1, 2, 3], :s32), [], "a position, or one for each of a batch"}
          ] do
        refused(message, fn -> Fast.rope(x, position, opts) end)
      end

      refused("at least 2 axes", fn -> Fast.rope(waves(:f32, {8}), 0) end)
    end
  end

  # A layer of a decoder, with a cache.
  defn layer(x, weights, cache, position) do
    h = Fast.rms_norm(x, weights.norm, eps: 1.0e-6)
    q = Fast.einsum("bte,ehd->bhtd", [h, weights.q]) |> Fast.rope(position, base: 100)
    k = Fast.einsum("bte,ehd->bhtd", [h, weights.k]) |> Fast.rope(position, base: 100)
    cache = Fast.update_cache(cache, k, position)

    attended =
      Fast.scaled_dot_product_attention(q, cache, cache,
        causal: true,
        position: position,
        sinks: weights.sinks
      )

    x = x + Fast.einsum("bhtd,ehd->bte", [attended, weights.q])
    {Fast.swiglu(x, Fast.layer_norm(x, nil, nil)) |> Fast.softmax(), cache}
  end

  describe "in defn" do
    setup do
      weights = %{
        norm: waves(:f32, {6}),
        q: waves(:f32, {6, 4, 4}),
        k: waves(:f32, {6, 2, 4}),
        sinks: waves(:f32, {4})
      }

      %{args: [waves(:f32, {2, 3, 6}), weights, waves(:f32, {2, 2, 8, 4}), tensor([1, 4], :s32)]}
    end

    test "a layer gives the same everywhere", %{args: args} do
      assert_same(&layer/4, args, ulps: 64, scale: 1.0, signed_zero: false)
    end

    test "a layer is a row for each function", %{args: args} do
      rows = Mlx.Programs.rows(&layer/4, args)

      for row <- [:rms_norm, :rope, :indexed_put, :attention, :swiglu, :layer_norm, :softmax] do
        assert row in rows
      end

      refute :exp in rows
    end

    test "gradients of a layer", %{args: [x, weights, cache, position]} do
      gradient = fn x, weights, cache, position ->
        Nx.Defn.jit(
          &grad({&1, &2, &3}, fn {x, weights, cache} ->
            {out, _cache} = layer(x, weights, cache, &4)
            Nx.sum(Nx.multiply(out, Nx.iota({2, 3, 6})))
          end),
          on_conflict: :reuse
        ).(x, weights, cache, position)
      end

      close = [ulps: 256, scale: 8.0, signed_zero: false]
      assert_same(gradient, [x, weights, cache, position], close)
    end
  end

  # Those of f32 and f64 are among the gradients of everything.
  test "gradients in halves" do
    for {_name, fun, args, _opts} <- Mlx.GradientCases.Fast.all(), type <- [:f16, :bf16] do
      args = Enum.map(args, &Nx.as_type(&1, type))
      gradient = Mlx.GradientCases.gradient(fun)
      close = [ulps: 32, scale: 4.0, signed_zero: false]
      assert_same(&(gradient.(&1) |> Tuple.to_list() |> cast(type)), [args], close)
    end
  end

  defp cast(tensors, type), do: tensors |> Enum.map(&Nx.as_type(&1, type)) |> List.to_tuple()
end
