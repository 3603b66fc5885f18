defmodule Mlx.Lowering.ShapeTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Shape, async: true

  @transposed Nx.transpose(sample(:s32, {3, 4}))
  @cube sample(:s32, {2, 3, 4})

  describe "as_type" do
    for from <- types(), to <- types(), from != to do
      check(:as_type, "from #{from} to #{to}", [small(from), to])
    end

    for from <- integers(), to <- integers(), from != to do
      check(:as_type, "from #{from} to #{to} up to the bounds", [sample(from), to])
    end

    for from <- floats(), to <- integers() do
      check(:as_type, "from #{from} that is not finite to #{to}", [specials(from), to])
    end

    for from <- floats(), to <- floats() ++ [:c64], from != to do
      check(:as_type, "from #{from} that is not finite to #{to}", [specials(from), to])
    end

    # Past the bounds of the type Nx wraps.
    for to <- integers() do
      numbers = [300.7, -300.7, 70_000.5, -70_000.5, 5.0e9, -5.0e9, -1.9, -0.9, 255.9]
      check(:as_type, "from f64 past the bounds of #{to}", [tensor(numbers, :f64), to])
    end

    check(:as_type, "from large floats to u64", [
      tensor([2.0 ** 63, 2.0 ** 64 - 2048], :f64),
      :u64
    ])

    check(:as_type, "from large floats to s64", [tensor([2.0 ** 62, -(2.0 ** 63)], :f64), :s64])
    check(:as_type, "keeps names", [sample(:f32, {2, 2}, names: [:x, :y]), :u8])
  end

  describe "bitcast" do
    for {from, to} <- [u8: :s8, s16: :u16, u16: :f16, s16: :bf16, u32: :f32, s64: :u64, u64: :f64] do
      check(:bitcast, "from #{from} to #{to}", [tensor([[0, 1, 100], [2, 3, 64]], from), to])
      check(:bitcast, "from #{to} to #{from}", [small(to), from])
    end
  end

  describe "reshape" do
    for type <- types() do
      check(:reshape, "of #{type}", [sample(type, {2, 6}), {3, 4}])
    end

    check(:reshape, "to one dimension", [@cube, {24}])
    check(:reshape, "to more dimensions", [@cube, {2, 1, 3, 2, 2}])
    check(:reshape, "with names", [@cube, {4, 6}, [names: [:x, :y]]])
    check(:reshape, "of a scalar", [tensor(3, :s32), {1, 1}])
    check(:reshape, "to a scalar", [tensor([[3]], :s32), {}])
    check(:reshape, "with a dimension to find out", [@cube, {:auto, 4}])

    check(:squeeze, "of all", [sample(:f32, {1, 3, 1, 2})])
    check(:squeeze, "of one axis", [sample(:f32, {1, 3, 1, 2}), [axes: [2]]])
    check(:squeeze, "by name", [sample(:f32, {1, 3}, names: [:x, :y]), [axes: [:x]]])
    check(:squeeze, "to a scalar", [sample(:f32, {1, 1})])
  end

  describe "broadcast" do
    for type <- types() do
      check(:broadcast, "of #{type}", [sample(type, {3}), {2, 3}])
    end

    check(:broadcast, "of a scalar", [tensor(2, :u8), {2, 3}])
    check(:broadcast, "of dimensions of size one", [sample(:s32, {2, 1, 3}), {4, 2, 5, 3}])
    check(:broadcast, "along other axes", [sample(:s32, {3}), {3, 4}, [axes: [0]]])
    check(:broadcast, "of two axes", [sample(:s32, {2, 3}), {2, 4, 3}, [axes: [0, 2]]])
    check(:broadcast, "of an axis of size one", [sample(:s32, {2, 1}), {2, 3, 4}, [axes: [0, 1]]])
    check(:broadcast, "with names", [sample(:s32, {3}), {2, 3}, [names: [:x, :y]]])
  end

  describe "transpose and reverse" do
    for type <- types() do
      check(:transpose, "of #{type}", [sample(type)])
      check(:reverse, "of #{type}", [sample(type)])
    end

    for axes <- [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [-1, 0, -2]] do
      check(:transpose, "with #{inspect(axes)}", [@cube, [axes: axes]])
    end

    for axes <- [[0], [1], [2], [0, 2], [-1], [2, 0, 1]] do
      check(:reverse, "with #{inspect(axes)}", [@cube, [axes: axes]])
    end

    check(:transpose, "by name", [sample(:f32, {2, 3}, names: [:x, :y]), [axes: [:y, :x]]])
    check(:reverse, "by name", [sample(:f32, {2, 3}, names: [:x, :y]), [axes: [:y]]])

    # Transposed arrays don't lie in row order.
    check(:reshape, "after transpose", [@transposed, {2, 6}])
  end

  describe "concatenate and stack" do
    for {a, b} <- pairs() do
      tensors = [sample(a, {2, 3}), sample(b, {1, 3})]
      check(:concatenate, "of #{a} and #{b}", [tensors])
      check(:stack, "of #{a} and #{b}", [[sample(a, {2, 3}), sample(b, {2, 3})]])
    end

    for axis <- [0, 1, 2, -1] do
      check(:concatenate, "along #{axis}", [[@cube, @cube, @cube], [axis: axis]])
      check(:stack, "along #{axis}", [[@cube, @cube], [axis: axis]])
    end

    three = for size <- 1..3, do: sample(:s32, {2, size}, names: [:x, :y], from: size)
    check(:concatenate, "of different sizes", [three, [axis: 1]])
    check(:concatenate, "by name", [three, [axis: :y]])

    check(:concatenate, "of mixed types", [
      [sample(:u8, {2}), sample(:s8, {1}), sample(:f32, {3})]
    ])

    check(:stack, "with a name", [[sample(:s32, {2}), sample(:s32, {2})], [axis: 0, name: :z]])
    check(:stack, "of scalars", [[tensor(1, :u8), tensor(-2, :s16), tensor(0.5, :f32)]])
  end

  describe "pad" do
    for type <- types() do
      check(:pad, "of #{type}", [sample(type, {2, 3}), tensor(5, type), [{1, 2, 0}, {0, 1, 1}]])
    end

    for config <-
          [{0, 0, 0}, {2, 1, 0}, {0, 0, 2}, {1, 2, 3}, {-1, 0, 0}, {0, -2, 0}] ++
            [{-1, -1, 0}, {-2, 3, 0}, {3, -2, 0}, {-1, -1, 2}, {-2, 1, 1}, {-4, 0, 0}] ++
            [{-2, -2, 0}, {0, -4, 0}, {-3, -7, 2}, {-5, 2, 2}] do
      check(:pad, "with #{inspect(config)}", [sample(:s32, {4}), 7, [config]])
    end

    check(:pad, "in three dimensions", [@cube, -1, [{1, -1, 0}, {0, 2, 1}, {-1, 1, 2}]])
    check(:pad, "with NaN", [sample(:f32, {2}), tensor(:nan, :f32), [{1, 1, 1}]])
    check(:pad, "of a scalar", [tensor(3, :u8), 5, []])
    check(:pad, "keeps names", [sample(:s32, {2, 2}, names: [:x, :y]), 0, [{1, 0, 0}, {0, 1, 0}]])
    check(:pad, "of vectorized", [Nx.vectorize(sample(:s32, {2, 3}), :v), 0, [{1, 1, 0}]])
    check(:pad, "of a view", [@transposed, 0, [{-1, 1, 1}, {2, -1, 0}]])

    # Nx.BinaryBackend leaves the bits of the other type in place.
    test "casts to the merged type" do
      padded = tensor([1.5, 1.0, 2.0, 1.5], :f32)
      assert_gives(&Nx.pad(&1, 1.5, [{1, 1, 0}]), [tensor([1, 2], :s32)], padded)
    end

    # Nx.BinaryBackend raises.
    test "adds to what nothing is left of" do
      x = tensor([1, 2], :s32)
      assert_gives(&Nx.pad(&1, 7, [{-3, 4, 0}]), [x], tensor([7, 7, 7], :s32))
      assert_gives(&Nx.pad(&1, 7, [{-1, -1, 0}]), [x], Mlx.Generators.empty(:s32, {0}))
      empty = Mlx.Generators.empty(:s32, {0})
      assert_gives(&Nx.pad(&1, 7, [{1, 1, 0}]), [empty], tensor([7, 7], :s32))
      assert_raise Mlx.Error, fn -> run(&Nx.pad(&1, 7, [{-3, 0, 0}]), [x]) end
    end
  end

  test "tensors without elements" do
    x = Mlx.Generators.empty(:f32, {0, 3})
    one = tensor([[1.0, 2.0, 3.0]], :f32)
    assert_gives(&Nx.concatenate([&1, &2]), [x, one], one)
    assert_gives(&Nx.transpose/1, [x], Mlx.Generators.empty(:f32, {3, 0}))
    assert_gives(&Nx.reverse/1, [x], x)
    assert_gives(&Nx.as_type(&1, :u8), [x], Mlx.Generators.empty(:u8, {0, 3}))
    assert_gives(&Nx.bitcast(&1, :s32), [x], Mlx.Generators.empty(:s32, {0, 3}))
  end

  test "operations on a view read the right elements" do
    view = &(&1 |> Nx.transpose() |> Nx.slice([1, 0], [2, 3]) |> Nx.reverse(axes: [1]))
    assert_same(&Nx.sum(view.(&1), axes: [0]), [sample(:s32, {3, 4})])
    assert_same(&Nx.reshape(view.(&1), {6}), [sample(:f32, {3, 4})])
    assert_same(&Nx.bitcast(view.(&1), :u32), [sample(:s32, {3, 4})])
    assert_same(&Nx.broadcast(Nx.new_axis(view.(&1), 0), {2, 2, 3}), [sample(:u8, {3, 4})])
  end
end
