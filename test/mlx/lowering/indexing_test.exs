defmodule Mlx.Lowering.IndexingTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Indexing, async: true

  @cube sample(:s32, {3, 4, 5})
  @matrix sample(:s32, {3, 4})

  describe "slice" do
    for type <- types() do
      check(:slice, "of #{type}", [sample(type), [1, 2], [2, 3]])
      check(:slice, "at computed starts of #{type}", [sample(type), [tensor(1, :s64), 2], [2, 3]])
    end

    for strides <- [[1, 1, 1], [2, 1, 3], [1, 2, 2], [3, 4, 5]] do
      check(:slice, "with strides #{inspect(strides)}", [
        @cube,
        [0, 0, 0],
        [3, 4, 5],
        [strides: strides]
      ])

      check(:slice, "inside with strides #{inspect(strides)}", [
        @cube,
        [1, 1, 1],
        [2, 3, 4],
        [strides: strides]
      ])
    end

    for type <- integers() do
      starts = [tensor(1, type), tensor(0, type), tensor(2, type)]

      check(:slice, "with strides at starts of #{type}", [
        @cube,
        starts,
        [2, 3, 3],
        [strides: [1, 2, 2]]
      ])
    end

    check(:slice, "of everything", [@matrix, [0, 0], [3, 4]])
    check(:slice, "of one dimension", [sample(:f32, {7}), [2], [4], [strides: [3]]])
    check(:slice, "keeps names", [sample(:f32, {3, 4}, names: [:x, :y]), [1, 1], [1, 2]])
  end

  describe "put_slice" do
    for {a, b} <- pairs() do
      check(:put_slice, "of #{b} into #{a}", [sample(a), [1, 2], sample(b, {2, 2}, from: 4)])
    end

    for type <- integers() do
      starts = [tensor(1, type), tensor(2, type)]

      check(:put_slice, "at starts of #{type}", [
        sample(:f32),
        starts,
        sample(:f32, {2, 2}, from: 4)
      ])
    end

    check(:put_slice, "of everything", [sample(:f32), [0, 0], sample(:f32, {3, 5}, from: 4)])
    check(:put_slice, "of one dimension", [sample(:f32, {7}), [3], sample(:f32, {2}, from: 5)])

    check(:put_slice, "at a mix of starts", [
      @cube,
      [1, tensor(2, :u8), 0],
      sample(:s32, {1, 2, 5}, from: 3)
    ])
  end

  describe "gather" do
    for type <- types() do
      check(:gather, "of #{type}", [sample(type), tensor([[0, 1], [2, 4], [1, 0]], :s64)])
    end

    for type <- integers() do
      check(:gather, "at #{type}", [@matrix, tensor([[0, 1], [2, 3], [1, 0]], type)])
    end

    check(:gather, "of rows", [@matrix, tensor([[2], [0], [2]], :s32)])
    check(:gather, "of rows of a cube", [@cube, tensor([[2], [0]], :s32)])
    check(:gather, "with axes in order", [@cube, tensor([[2, 3], [0, 1]], :s32), [axes: [0, 1]]])
    check(:gather, "along the last axis", [@cube, tensor([[4], [0], [1]], :s32), [axes: [2]]])

    check(:gather, "along the outer axes", [@cube, tensor([[2, 4], [0, 1]], :s32), [axes: [0, 2]]])

    check(:gather, "along a middle axis", [@cube, tensor([[3], [1]], :s32), [axes: [1]]])
    check(:gather, "at indices of more dimensions", [@matrix, tensor([[[0, 1], [2, 3]]], :s32)])
    check(:gather, "at one index", [@matrix, tensor([1, 2], :s32)])

    check(:gather, "keeps names", [
      sample(:f32, {3, 4}, names: [:x, :y]),
      tensor([[1], [0]], :s32)
    ])
  end

  describe "indexed_add" do
    for {a, b} <- pairs() do
      indices = tensor([[0, 1], [2, 4], [0, 1]], :s64)
      check(:indexed_add, "of #{b} to #{a}", [sample(a), indices, sample(b, {3})], scale: 4.0)
    end

    for type <- integers() do
      args = [@matrix, tensor([[0, 1], [2, 3], [0, 1]], type), sample(:s32, {3})]
      check(:indexed_add, "at #{type}", args)
    end

    duplicates = tensor(List.duplicate([1], 50), :s32)
    check(:indexed_add, "accumulates", [sample(:s32, {3}), duplicates, sample(:s32, {50})])
    check(:indexed_add, "of rows", [@matrix, tensor([[2], [2]], :s32), sample(:s32, {2, 4})])

    check(:indexed_add, "of rows to a cube", [
      @cube,
      tensor([[2], [0]], :s32),
      sample(:s32, {2, 4, 5})
    ])

    args = [@cube, tensor([[2, 3], [0, 1]], :s32), sample(:s32, {2, 5}), [axes: [0, 1]]]
    check(:indexed_add, "with axes in order", args)
    args = [@cube, tensor([[4], [0], [4]], :s32), sample(:s32, {3, 3, 4}), [axes: [2]]]
    check(:indexed_add, "along the last axis", args)
    args = [@cube, tensor([[2, 4], [0, 1]], :s32), sample(:s32, {2, 4}), [axes: [0, 2]]]
    check(:indexed_add, "along the outer axes", args)
    check(:indexed_add, "at one index", [@matrix, tensor([1, 2], :s32), tensor(5, :s32)])
  end

  describe "indexed_put" do
    for {a, b} <- pairs() do
      indices = tensor([[0, 1], [2, 4], [0, 1]], :s64)
      check(:indexed_put, "of #{b} to #{a}", [sample(a), indices, sample(b, {3})])
    end

    for type <- integers() do
      args = [@matrix, tensor([[0, 1], [2, 3], [0, 1]], type), sample(:s32, {3})]
      check(:indexed_put, "at #{type}", args)
    end

    duplicates = tensor(List.duplicate([1], 5000), :s32)
    check(:indexed_put, "keeps the last", [sample(:s32, {3}), duplicates, sample(:s64, {5000})])
    check(:indexed_put, "of rows", [@matrix, tensor([[2], [2]], :s32), sample(:s32, {2, 4})])
    args = [@cube, tensor([[2, 3], [0, 1]], :s32), sample(:s32, {2, 5}), [axes: [0, 1]]]
    check(:indexed_put, "with axes in order", args)
    args = [@cube, tensor([[4], [0], [4]], :s32), sample(:s32, {3, 3, 4}), [axes: [2]]]
    check(:indexed_put, "along the last axis", args)
    args = [@cube, tensor([[2, 4], [0, 1]], :s32), sample(:s32, {2, 4}), [axes: [0, 2]]]
    check(:indexed_put, "along the outer axes", args)
    check(:indexed_put, "at one index", [@matrix, tensor([1, 2], :s32), tensor(5, :s32)])
    args = [@matrix, tensor([[0], [2]], :s32), sample(:s32, {2, 3})]
    check(:indexed_put, "of the first part of rows", args)
    args = [@matrix, tensor([[3], [0]], :s32), sample(:s32, {2, 2}), [axes: [1]]]
    check(:indexed_put, "of the first part of columns", args)
  end

  # Nx.BinaryBackend puts the elements of such parts one behind the other.
  test "indexed_put and indexed_add of a part of several axes start at their origin" do
    x = Nx.broadcast(tensor(0, :s32), {2, 3, 4})
    part = tensor([[[1, 2], [3, 4]]], :s32)
    expected = Nx.put_slice(x, [1, 0, 0], part)
    args = [x, tensor([[1]], :s32), part]
    assert_gives(&Nx.indexed_put/3, args, expected)
    assert_gives(&Nx.indexed_add/3, args, expected)
  end

  # Nx.BinaryBackend puts the first elements of such parts.
  test "indexed_put and indexed_add of parts to vectorized tensors are those to each" do
    updates = sample(:s32, {3, 2, 4}, from: 2)

    for {fun, at} <- [{&Nx.indexed_put/4, [[1], [0]]}, {&Nx.indexed_add/4, [[2], [2]]}] do
      args = [@cube, tensor(at, :s32), updates]
      along = &fun.(&1, &2, &3, axes: [1])
      expected = for i <- 0..2, do: along.(@cube[i], tensor(at, :s32), updates[i])

      vectorized = fn x, at, updates ->
        along.(Nx.vectorize(x, :x), at, Nx.vectorize(updates, :x))
      end

      assert_gives(vectorized, args, Nx.vectorize(Nx.stack(expected), :x))
    end
  end

  describe "take" do
    for type <- types() do
      test "of #{type}" do
        assert_same(&Nx.take/2, [sample(unquote(type)), tensor([2, 0, 2], :s32)])
        assert_same(&Nx.take(&1, &2, axis: 1), [sample(unquote(type)), tensor([4, 0], :s32)])
      end
    end

    for type <- integers() do
      test "at #{type}" do
        assert_same(&Nx.take(&1, &2, axis: 1), [@cube, tensor([[3, 0], [1, 1]], unquote(type))])
      end
    end

    test "at a scalar and at indices of more dimensions" do
      assert_same(&Nx.take/2, [@cube, tensor(1, :s32)])
      assert_same(&Nx.take(&1, &2, axis: 2), [@cube, tensor([[[1, 4]], [[0, 2]]], :u8)])
    end

    test "of names and vectorized tensors" do
      x = sample(:f32, {3, 4}, names: [:x, :y])
      assert_same(&Nx.take(&1, &2, axis: :y), [x, tensor([3, 1], :s32)])
      assert_same(&Nx.take/2, [x, tensor([2, 1], :s32, names: [:x])])
      assert_same(&Nx.take/2, [Nx.vectorize(@cube, :v), tensor([3, 1], :s32)])
      assert_same(&Nx.take/2, [@cube, Nx.vectorize(tensor([[2, 1], [0, 0]], :s32), :v)])
    end
  end

  describe "take_along_axis" do
    for type <- types() do
      test "of #{type}" do
        at = tensor([[2, 0, 1, 1, 0], [0, 0, 2, 1, 2]], :s64)
        assert_same(&Nx.take_along_axis(&1, &2, axis: 0), [sample(unquote(type)), at])
      end
    end

    for type <- integers(), axis <- 0..2 do
      test "at #{type} along axis #{axis}" do
        at = Nx.remainder(Nx.iota({3, 4, 5}, type: unquote(type), backend: Nx.BinaryBackend), 3)
        assert_same(&Nx.take_along_axis(&1, &2, axis: unquote(axis)), [@cube, at])
      end
    end

    test "of vectorized tensors" do
      x = Nx.vectorize(@cube, :x)
      assert_same(&Nx.take_along_axis(&1, &2, axis: 1), [x, tensor([[4], [0], [1], [1]], :s32)])
    end
  end

  test "parts by Access" do
    assert_same(& &1[[1, 1..2]], [@matrix])
    assert_same(& &1[[.., -1]], [@matrix])
    assert_same(& &1[&2], [@matrix, tensor(2, :s32)])
    assert_same(& &1[[&2, 1..2]], [@matrix, tensor(2, :u8)])
  end

  # Many positions that are computed are looked at instead of being moved.
  describe "many positions" do
    for type <- [:s32, :s64, :u32, :u64, :u16], wrong <- [nil, 5_000, 70_000, -1] do
      test "of #{type}#{if wrong, do: ", one of them #{wrong}"}" do
        type = Nx.Type.normalize!(unquote(type))
        limit = 4_999
        wrong = unquote(wrong) && unquote(wrong) |> Nx.tensor(type: :s64) |> Nx.as_type(type)
        numbers = for i <- 1..5_000, do: rem(i * 7919, limit + 1)

        numbers =
          if wrong, do: List.replace_at(numbers, 4_321, Nx.to_number(wrong)), else: numbers

        inside = Enum.map(numbers, &(&1 |> max(0) |> min(limit)))

        [x, given, moved] =
          [Enum.to_list(0..limit), numbers, inside] |> Enum.map(&tensor(&1, type))

        column = &Nx.new_axis(&1, 1)
        pair = &Nx.stack([Nx.remainder(&1, 2), &1], axis: 1)
        rows = Nx.stack([x, Nx.add(x, 1)])

        for {fun, oracle} <- [
              {&Nx.take(x, &1), Nx.take(x, moved)},
              {&Nx.take(x, Nx.add(&1, 0)), Nx.take(x, moved)},
              {&Nx.gather(x, column.(&1)), Nx.take(x, moved)},
              {&Nx.take_along_axis(x, &1), Nx.take(x, moved)},
              {&Nx.indexed_add(x, column.(&1), x), Nx.indexed_add(x, column.(moved), x)}
            ] do
          assert_gives(fun, [given], oracle)
        end

        unless wrong do
          assert_gives(&Nx.gather/2, [rows, pair.(given)], Nx.gather(rows, pair.(moved)))
        end
      end
    end
  end

  test "what is clamped is so on every way" do
    far = tensor([[-100, 100], [2 ** 31, -(2 ** 40)]], :s64)
    near = tensor([[0, 3], [3, 0]], :s64)
    take = &Nx.take(&1, &2, axis: 1)
    assert_gives(take, [@matrix, far], take.(@matrix, near))
    far = Nx.concatenate([far, tensor([[5, -1]], :s64)])
    near = Nx.concatenate([near, tensor([[3, 0]], :s64)])
    take = &Nx.take_along_axis(&1, &2, axis: 1)
    assert_gives(take, [@matrix, far], take.(@matrix, near))

    updates = tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9], [3, 2, 1]], :s32)
    far = tensor([[-5], [100], [2 ** 40], [-(2 ** 62)]], :s64)
    near = tensor([[0], [3], [3], [0]], :s64)

    for fun <- [&Nx.indexed_put/4, &Nx.indexed_add/4] do
      expected = fun.(@matrix, near, updates, axes: [1])
      assert_gives(&fun.(&1, &2, &3, axes: [1]), [@matrix, far, updates], expected)
    end
  end

  test "nothing is at any position of an empty axis" do
    x = Mlx.Backend.from_binary(Nx.template({0, 3}, :f32), "", [])
    at = tensor([[0]], :s32)
    row = tensor([[1.0, 2.0, 3.0]], :f32)

    for fun <- [
          fn -> Nx.take(x, Nx.flatten(at)) end,
          fn -> Nx.take_along_axis(x, tensor([[0, 0, 0]], :s32)) end,
          fn -> Nx.gather(x, at) end,
          fn -> Nx.indexed_put(x, at, row) end,
          fn -> Nx.indexed_add(x, at, row) end
        ] do
      error = assert_raise Mlx.Error, fn -> Nx.to_binary(fun.()) end
      assert error.kind == :shape
      assert error.message =~ "axis 0 is empty"
    end

    none = Mlx.Backend.from_binary(Nx.template({3, 0}, :f32), "", [])
    assert Nx.to_binary(Nx.take(none, Nx.flatten(at))) == ""
    assert Nx.to_binary(Nx.gather(none, at)) == ""
  end
end
