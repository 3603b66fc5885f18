defmodule Mlx.Fast.EinsumTest do
  use ExUnit.Case, async: true
  import Mlx.FastCase
  import Mlx.Oracle
  import Mlx.Samples
  alias Mlx.Fast

  @close close()

  test "of written-out sums" do
    a = tensor([[1, 2], [3, 4]], :s32)
    v = tensor([10, 100], :s32)

    for {subscripts, tensors, expected} <- [
          {"ij->ji", [a], [[1, 3], [2, 4]]},
          {"ij", [a], [[1, 2], [3, 4]]},
          {"ji", [a], [[1, 3], [2, 4]]},
          {"ij->", [a], 10},
          {"ij->j", [a], [4, 6]},
          {"ii->i", [a], [1, 4]},
          {"ii", [a], 5},
          {"ij,j->i", [a, v], [210, 430]},
          {"i,j->ij", [v, v], [[100, 1000], [1000, 10000]]},
          {"i,i", [v, v], 10100},
          {"ij,ij->ij", [a, a], [[1, 4], [9, 16]]},
          {"ij,jk,k->i", [a, a, v], [1070, 2350]},
          {"... , ...", [v, tensor(2, :s32)], [20, 200]},
          {"...i->i...", [a], [[1, 3], [2, 4]]},
          {"i...,...->...", [a, v], [40, 600]},
          {"a...,b...->ba", [a, v], [[30, 70], [300, 700]]}
        ] do
      assert Fast.einsum(subscripts, tensors) == tensor(expected, :s32), subscripts
      assert_same(&Fast.einsum(subscripts, &1), [tensors])
    end
  end

  test "broadcasts what an ellipsis stands for" do
    a = waves(:f32, {2, 1, 3, 4})
    b = waves(:f32, {5, 4, 2})
    assert_same(&Fast.einsum("...ij,...jk->...ik", [&1, &2]), [a, b], @close)

    expected =
      Nx.dot(Nx.broadcast(a, {2, 5, 3, 4}), [3], [0, 1], Nx.broadcast(b, {2, 5, 4, 2}), [2], [
        0,
        1
      ])

    got = Fast.einsum("...ij,...jk->...ik", [a, b])
    assert Nx.to_number(Nx.all_close(got, expected)) == 1
  end

  test "keeps the type of sums" do
    assert Fast.einsum("i->", [tensor([100, 100, 100], :u8)]) == tensor(44, :u8)

    assert Fast.einsum("i,i->", [tensor([1, 2], :u8), tensor([0.5, 1.0], :bf16)]).type ==
             {:bf, 16}
  end

  test "makes cheap products first" do
    shapes = for shape <- [{100, 100}, {100, 100}, {100}], do: Nx.template(shape, :f32)
    program = inspect(Mlx.Compiler.program(&Fast.einsum("ij,jk,k->i", [&1, &2, &3]), shapes))
    refute program =~ "[100, 100]"
    [first, second] = Regex.scan(~r/mat(?:mul|vec).*/, program)
    assert first != second
  end

  test "of vectorized tensors" do
    a = Nx.vectorize(waves(:f32, {2, 3, 4}), :v)
    assert_same(&Fast.einsum("ij,jk->ki", [&1, &2]), [a, waves(:f32, {4, 5})], @close)
    assert_same(&Fast.einsum("ii->i", [&1]), [Nx.vectorize(waves(:f32, {2, 3, 3}), :v)])
  end

  test "refuses what has no meaning" do
    a = waves(:f32, {2, 3})

    for {subscripts, tensors, message} <- [
          {"ij,jk", [a], "there are 2 terms for 1 tensors"},
          {"ijk", [a], "3 axes are named for a tensor of shape {2, 3}"},
          {"i", [a], "1 axes are named"},
          {"ijk...", [a], "3 axes are named"},
          {"ij,ij->ij->ij", [a, a], "more than one ->"},
          {"ij->ik", [a], "no term has the axis k"},
          {"ij->ii", [a], "the output has an axis twice"},
          {"ij,jk", [a, a], "the axis j has 3 elements in one place and 2 in another"},
          {"i%n", [a], "\"%\" is no letter"},
          {"i.j", [a], "\".\" is no letter"},
          {"...i...", [a], "more than one ellipsis"},
          {:ij, [a], "a string of subscripts"}
        ] do
      refused(message, fn -> Fast.einsum(subscripts, tensors) end)
    end
  end
end
