defmodule Mlx.Lowering.ControlTest do
  use ExUnit.Case, async: true

  import Mlx.Oracle
  import Mlx.Samples
  import Nx.Defn

  # Eager functions evaluate branches and loops themselves; compiled ones do it in the
  # engine. `assert_same` compares both with `Nx.BinaryBackend`.

  defn sign_of_sum(x) do
    cond do
      Nx.sum(x) > 10 -> {x + 1, {Nx.exp(x), 1}}
      Nx.sum(x) > 0 -> {x * 2, {Nx.cos(x), 2}}
      true -> {-x, {x, 3}}
    end
  end

  defn shared_between_branches(x, y) do
    costly = Nx.exp(x) + y
    first = if Nx.sum(x) > 0, do: costly * 2, else: y
    second = if Nx.sum(y) > 0, do: costly + first, else: x
    {first, second}
  end

  defn branches_in_branches(x) do
    if Nx.any(x > 2) do
      if Nx.all(x > 2), do: x - 2, else: Nx.select(x > 2, x, 0)
    else
      if Nx.any(x < 0), do: Nx.abs(x), else: x * 10
    end
  end

  defn widest(x) do
    if Nx.sum(x) > 0, do: Nx.as_type(x, :f32), else: Nx.sum(x)
  end

  defn of_containers(%{a: a, b: {b, c}}) do
    if a > 0, do: %{a: b, b: {c, a}}, else: %{a: a, b: {b, c}}
  end

  defn rectified(x), do: if(x > 0, do: x, else: 0)

  defn only_constants(p) do
    if p, do: 1, else: 2
  end

  describe "cond" do
    test "takes one of many branches" do
      for x <- [[9.0, 3.0], [1.0, 0.5], [-4.0, 2.0]] do
        assert_same(&sign_of_sum/1, [tensor(x, :f32)], ulps: 32)
      end
    end

    test "shares what branches have in common" do
      for x <- [1.0, -1.0], y <- [2.0, -2.0] do
        args = [tensor([x, x], :f32), tensor([y, y], :f32)]
        assert_same(&shared_between_branches/2, args, ulps: 32)
      end
    end

    test "inside cond" do
      for x <- [[3, 4], [3, 1], [-1, 1], [0, 1]] do
        assert_same(&branches_in_branches/1, [tensor(x, :s32)])
      end
    end

    test "gives what holds the results of all branches" do
      assert_same(&widest/1, [tensor([1, 2], :s32)])
      assert_same(&widest/1, [tensor([-1, -2], :s32)])
    end

    test "of containers" do
      for a <- [1, -1] do
        container = %{a: tensor(a, :s32), b: {tensor(5, :s32), tensor(7, :s32)}}
        assert_same(&of_containers/1, [container])
      end
    end

    test "of predicates of every type" do
      for type <- types(), type != :c64, value <- [0, 1] do
        assert_same(&only_constants/1, [tensor(value, type)])
      end

      assert_same(&only_constants/1, [tensor(:nan, :f32)])
      assert_same(&only_constants/1, [tensor(-0.0, :f32)])
    end

    test "with vectorized predicates" do
      x = Nx.vectorize(tensor([1, -1, 3], :s32), :v)
      assert_same(&rectified/1, [x])
    end
  end

  defn counted_up(x) do
    while {i = 0, x}, i < 10 do
      {i + 1, x * 1.5 + i}
    end
  end

  defn counted_down(x) do
    while {x, i = 20}, 3 <= i do
      {x + i, i - 3}
    end
  end

  defn until_large(x) do
    while x, Nx.sum(x) < 1000 do
      x * 2
    end
  end

  defn never(x) do
    {_, x} =
      while {i = 5, x}, i < 5 do
        {i + 1, x + 1}
      end

    x
  end

  defn over_a_range(x) do
    while acc = x, i <- 10..1//-3 do
      acc * 2 + i
    end
  end

  defn unrolled(x) do
    while acc = x, i <- 0..10, unroll: 4 do
      acc * 2 + i
    end
  end

  defn over_a_tensor(x) do
    while acc = 0, row <- x do
      acc + Nx.sum(row)
    end
  end

  defn nested(x) do
    {_, x} =
      while {i = 0, x}, i < 3 do
        {_, x, _} =
          while {j = 0, x, i}, j < i do
            {j + 1, x + j * i, i}
          end

        {i + 1, x * 2}
      end

    x
  end

  defn branch_in_loop(x) do
    {_, x} =
      while {i = 0, x}, i < 6 do
        x = if Nx.remainder(i, 2) == 0, do: x + i, else: x * 2
        {i + 1, x}
      end

    x
  end

  defn loop_in_branch(x) do
    if Nx.sum(x) > 0 do
      {_, x} =
        while {i = 0, x}, i < 3 do
          {i + 1, x + i}
        end

      x
    else
      until_large(Nx.abs(x) + 1)
    end
  end

  defn swapped(x, y) do
    {_, x, y} =
      while {i = 0, x, y}, i < 3 do
        {i + 1, y, x + y}
      end

    {x, y}
  end

  defn wraps(x) do
    {_, _, x} =
      while {i = Nx.u8(250), n = 0, x}, i > 3 and n < 20 do
        {i + 1, n + 1, x + 1}
      end

    x
  end

  # Only the counter of this one is ever looked at.
  defn wraps_at_once(x) do
    {_, x} =
      while {i = Nx.u8(250), x}, i >= 250 do
        {i + 1, x + 1}
      end

    x
  end

  defn long(x) do
    {_, x} =
      while {i = 0, x}, i < 1000 do
        {i + 1, Nx.remainder(x * 3 + i, 101)}
      end

    x
  end

  describe "while" do
    test "counts up and down" do
      assert_same(&counted_up/1, [tensor([1.0, 2.0], :f32)])
      assert_same(&counted_down/1, [tensor([1, 2], :s32)])
      assert_same(&never/1, [tensor([1, 2], :s32)])
      assert_same(&swapped/2, [tensor([1, 2], :s32), tensor([3, 4], :s32)])
    end

    test "runs until its condition fails" do
      assert_same(&until_large/1, [tensor([1.0, 2.0], :f32)])
      assert_same(&until_large/1, [tensor([1.0, 2000.0], :f32)])
    end

    test "over ranges and tensors" do
      assert_same(&over_a_range/1, [tensor([1, 2], :s32)])
      assert_same(&unrolled/1, [tensor([1, 2], :s32)])
      assert_same(&over_a_tensor/1, [tensor([[1, 2], [3, 4], [5, 6]], :s32)])
    end

    test "inside while and cond" do
      assert_same(&nested/1, [tensor([1, 2], :s32)])
      assert_same(&branch_in_loop/1, [tensor([1, 2], :s32)])
      assert_same(&loop_in_branch/1, [tensor([1.0, 2.0], :f32)])
      assert_same(&loop_in_branch/1, [tensor([1.0, -2.0], :f32)])
    end

    test "with a counter that wraps" do
      assert_same(&wraps/1, [tensor(0, :s32)])
      assert_same(&wraps_at_once/1, [tensor(0, :s32)])
    end

    test "with vectorized tensors" do
      assert_same(&until_large/1, [Nx.vectorize(tensor([[1.0], [200.0]], :f32), :v)])
    end

    test "of more iterations than are built at once" do
      assert_same(&long/1, [tensor([1, 2], :s32)])
    end
  end

  defn through_a_loop(x) do
    {_, x} =
      while {i = 0, x}, i < 3 do
        {i + 1, x * x + i}
      end

    Nx.sum(x)
  end

  defn through_a_branch(x) do
    if Nx.sum(x) > 0, do: Nx.sum(x * x), else: Nx.sum(Nx.exp(x))
  end

  describe "gradients" do
    test "through loops and branches" do
      assert_same(&Nx.Defn.grad(&1, fn x -> through_a_loop(x) end), [tensor([0.5, 1.5], :f32)])

      for x <- [1.0, -1.0] do
        x = tensor([x, x / 2], :f32)
        assert_same(&Nx.Defn.grad(&1, fn x -> through_a_branch(x) end), [x], ulps: 32)
      end
    end
  end
end
