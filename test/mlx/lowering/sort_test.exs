defmodule Mlx.Lowering.SortTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Sort, async: true

  @directions [:asc, :desc]
  @cube sample(:s32, {3, 4, 5})

  for op <- [:sort, :argsort], direction <- @directions do
    for type <- reals() do
      check(op, "of #{type}, #{direction}", [sample(type, {40}), [direction: direction]])
    end

    for type <- floats() do
      numbers = [:nan, 0.0, :infinity, -0.0, :nan, -1.5, :neg_infinity, 0.0, -0.0, 2.0, :infinity]
      options = [direction: direction, stable: true]
      check(op, "of #{type} that are not finite, #{direction}", [tensor(numbers, type), options])
    end

    for axis <- 0..2 do
      check(op, "along axis #{axis}, #{direction}", [@cube, [axis: axis, direction: direction]])
    end

    # Long enough for merges of several blocks.
    equals = Nx.remainder(Nx.iota({5000}, type: :u8, backend: Nx.BinaryBackend), 3)
    check(op, "of many equals, #{direction}", [equals, [direction: direction, stable: true]])
    check(op, "of one, #{direction}", [tensor([7], :u8), [direction: direction]])

    check(op, "of vectorized, #{direction}", [
      Nx.vectorize(@cube, :x),
      [axis: 1, direction: direction]
    ])

    transposed = Nx.transpose(sample(:f32, {6, 7}))
    check(op, "of transposed, #{direction}", [transposed, [direction: direction]])

    check(op, "of names, #{direction}", [
      sample(:f32, {2, 3}, names: [:x, :y]),
      [axis: :y, direction: direction]
    ])
  end

  for type <- reals() do
    check(:argsort, "to #{type}", [sample(:f32, {20}), [type: type]])
  end

  check(:argsort, "to a type too narrow", [Nx.iota({300}, backend: Nx.BinaryBackend), [type: :u8]])

  check(:sort, "of numbers that f64 rounds", [
    tensor([2 ** 64 - 1, 2 ** 63, 2 ** 53 + 1, 2 ** 64 - 2, 2 ** 53, 0], :u64)
  ])

  test "a sorted broadcast is that" do
    assert_same(&Nx.sort(Nx.broadcast(&1, {4, 3}), axis: 0), [tensor([2, 1, 3], :s32)])
    assert_same(&Nx.argsort(Nx.broadcast(&1, {4, 3}), axis: 1), [tensor([2, 1, 3], :s32)])
    assert_same(&Nx.sort(Nx.broadcast(&1, {3, 1})), [tensor([2.0], :f32)])
  end

  test "reversed and strided tensors are sorted" do
    opts = [direction: :desc]
    assert_same(&Nx.sort(Nx.reverse(&1), opts), [@cube])
    assert_same(&Nx.argsort(Nx.reverse(&1)), [@cube])
    assert_same(&Nx.sort(Nx.slice(&1, [0, 0, 0], [3, 4, 5], strides: [2, 2, 2])), [@cube])
  end

  describe "top_k" do
    for type <- reals(), k <- [1, 3, 40, 100] do
      test "#{k} of #{type}" do
        assert_same(&Nx.top_k(&1, k: unquote(k)), [sample(unquote(type), {2, 100})])
      end
    end

    for type <- floats(), k <- [1, 5, 60] do
      test "#{k} of #{type} that are not finite" do
        x = Nx.tile(specials(unquote(type)), [10])
        zeros = tensor([0.0, -0.0, 0.0], unquote(type))
        assert_same(&Nx.top_k(&1, k: unquote(k)), [Nx.concatenate([zeros, x])])
      end
    end

    test "of vectorized and named tensors" do
      assert_same(&Nx.top_k(&1, k: 2), [Nx.vectorize(@cube, :x)])
      assert_same(&Nx.top_k(&1, k: 2), [sample(:f32, {2, 3}, names: [:x, :y])])
    end

    test "of one element" do
      assert_same(&Nx.top_k/1, [tensor([5], :u8)])
    end
  end

  test "nothing is sorted to nothing" do
    for shape <- [{0}, {0, 3}, {3, 0}] do
      x = Mlx.Backend.from_binary(Nx.template(shape, :f32), "", [])

      for fun <- [&Nx.sort/2, &Nx.argsort/2], direction <- @directions do
        assert fun.(x, direction: direction).shape == shape
        assert Nx.to_binary(fun.(x, direction: direction)) == ""
      end
    end
  end
end
