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

  test "take, take_along_axis and put of single elements" do
    indices = tensor([[2, 0, 1, 1], [0, 0, 2, 1], [1, 2, 0, 0]], :s64)
    assert_same(&Nx.take/2, [@matrix, tensor([2, 0, 2], :u8)])
    assert_same(&Nx.take/3, [@matrix, tensor([[3, 0], [1, 1]], :s32), [axis: 1]])
    assert_same(&Nx.take_along_axis/3, [@matrix, indices, [axis: 0]])
    assert_same(& &1[[1, 1..2]], [@matrix])
    assert_same(& &1[[.., -1]], [@matrix])
    assert_same(& &1[&2], [@matrix, tensor(2, :s32)])
  end
end
