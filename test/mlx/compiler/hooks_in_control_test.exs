defmodule Mlx.Compiler.HooksInControlTest do
  @moduledoc """
  Calls from inside branches and loops, and what gradients make of them, held against
  `Nx.Defn.Evaluator`.
  """

  use ExUnit.Case, async: true
  import Mlx.Calls
  import Nx.Defn

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  defnp(inner(x), do: noted(x * 2, :inner))
  defp t(data), do: Nx.tensor(data, type: :f32)

  describe "cond" do
    defn in_branches(x) do
      a = noted(x + 1, :before)

      y =
        cond do
          Nx.sum(a) > 10 -> noted(a * 2, :large) + 1
          noted(Nx.sum(a), :predicate) > 0 -> noted(noted(-a, :small), :again)
          true -> x
        end

      {a, noted(y, :after)}
    end

    defn nested_branches(x) do
      if noted(Nx.sum(x), :outer) > 0 do
        if noted(Nx.product(x), :inner) > 0, do: noted(x, :yes), else: noted(-x, :no)
      else
        noted(x * 3, :negative)
      end
    end

    defn shared(x) do
      y = noted(Nx.exp(x), :shared)
      if Nx.sum(x) > 0, do: noted(y + 1, :used) * y, else: x
    end

    defn shared_and_used(x) do
      y = noted(Nx.exp(x), :shared)
      z = if Nx.sum(x) > 0, do: noted(y + 1, :used), else: x
      {z, noted(y, :after)}
    end

    defn shared_by_conds(x) do
      y = noted(Nx.exp(x), :shared)
      a = if Nx.sum(x) > 0, do: noted(y + 1, :first), else: x
      b = if Nx.sum(x) > 5, do: noted(y + 2, :second), else: x
      {a, b}
    end

    defn shared_after_another(x) do
      y = noted(Nx.exp(x), :shared)
      z = noted(x + 1, :other)
      a = if Nx.sum(x) > 0, do: noted(z + y, :first), else: x
      {a, z, noted(y, :after)}
    end

    defn shared_through_others(x) do
      y = noted(noted(Nx.exp(x), :inner) + 1, :outer)
      z = noted(y * 2, :z)
      a = if Nx.sum(x) > 0, do: z + 1, else: x
      b = if Nx.sum(x) > 5, do: y + 2, else: if(Nx.sum(x) < -2, do: z, else: x)
      c = if Nx.sum(x) < 0, do: z + y, else: x
      {a, b, c}
    end

    defn shared_in_one_branch(x) do
      y = noted(Nx.exp(x), :shared)

      if Nx.sum(x) > 0 do
        a = if Nx.sum(x) > 1, do: y, else: x
        b = if Nx.sum(x) > 5, do: y * 2, else: x
        a + b
      else
        (y + 1) * y
      end
    end

    defn shared_in_a_loop(x) do
      {_, x} =
        while {i = 0, x}, i < 3 do
          y = noted(x + 1, :shared)
          a = if Nx.remainder(i, 2) == 1, do: y, else: x
          b = if i > 1, do: y * 2, else: x
          {i + 1, a + b}
        end

      x
    end

    def seventh(x, _opts) do
      note(:runtime_call, x)
      Nx.divide(x, 7)
    end

    defn shared_result(x) do
      y = Nx.runtime_call(x, noted(x * 3, :data), &seventh/2) + 1
      a = if Nx.sum(x) > 0, do: noted(y + 1, :first), else: x
      b = if Nx.sum(x) > 5, do: y + 2, else: x
      {a, b}
    end

    defn shared_by_branches(x) do
      y = noted(Nx.exp(x), :shared)

      cond do
        Nx.sum(x) > 5 -> noted(y + 1, :first)
        Nx.sum(x) > 0 -> noted(y + 2, :second)
        true -> x
      end
    end

    defn containers_of_branches(x, y) do
      {a, {b, c}} =
        if Nx.sum(x) > 0 do
          noted({x, {y, x + y}}, true)
        else
          {y, {noted(x, false), 1.0}}
        end

      {noted(a, :a), b, c}
    end

    test "in the branch that is taken" do
      assert assert_same_calls(&in_branches/1, [t([9, 3])]) == [:before, :large, :after]

      assert assert_same_calls(&in_branches/1, [t([1, 0])]) == [
               :before,
               :predicate,
               :small,
               :again,
               :after
             ]

      assert assert_same_calls(&in_branches/1, [t([-3, -3])]) == [:before, :predicate, :after]
    end

    test "in cond" do
      assert assert_same_calls(&nested_branches/1, [t([1, 2])]) == [:outer, :inner, :yes]
      assert assert_same_calls(&nested_branches/1, [t([-1, 2])]) == [:outer, :inner, :no]
      assert assert_same_calls(&nested_branches/1, [t([-1, -2])]) == [:outer, :negative]
    end

    test "in what branches share" do
      for x <- [t([1, 2]), t([-1, -2]), t([3, 4])] do
        assert_same_calls(&shared/1, [x])
        assert_same_calls(&shared_by_branches/1, [x])
        assert_same_calls(&shared_by_conds/1, [x])
        assert_same_calls(&shared_and_used/1, [x])
        assert_same_calls(&shared_after_another/1, [x])
        assert_same_calls(&shared_through_others/1, [x])
        assert_same_calls(&shared_in_a_loop/1, [x])
        assert_same_calls(&shared_in_one_branch/1, [x])
      end
    end

    test "in what branches share, with a result" do
      assert [:data, :runtime_call, :first] = assert_same_calls(&shared_result/1, [t([1, 2])])
      assert [:data, :runtime_call, :first] = assert_same_calls(&shared_result/1, [t([3, 4])])

      # Here no branch needs it.
      x = t([-1, -2])
      {got, calls} = calls(&shared_result/1, [x], compiler: Mlx.Compiler)
      assert [{:data, _, _}, {:runtime_call, _, _}] = calls
      Mlx.Oracle.assert_identical(got, {x, x})
    end

    test "with containers" do
      assert_same_calls(&containers_of_branches/2, [t([1, 2]), t([3, 4])])
      assert_same_calls(&containers_of_branches/2, [t([-1, -2]), t([3, 4])])
    end
  end

  describe "while" do
    defn in_body(x) do
      {_, x} =
        while {i = 0, x}, i < 3 do
          {noted(i, :i) + 1, noted(x * 2, :x)}
        end

      noted(x, :after)
    end

    defn in_condition(x) do
      while x, noted(Nx.sum(x), :sum) < 20 do
        x * 2
      end
    end

    defn in_condition_and_body(x) do
      {x, _} =
        while {x, i = 0}, noted(Nx.sum(x), :sum) < 20 and noted(i, :i) < 3 do
          {noted(x + 1, :x), i + 1}
        end

      x
    end

    defn never(x) do
      while x, Nx.sum(x) < 0 do
        noted(x, :never)
      end
    end

    defn branch_in_loop(x) do
      {_, x} =
        while {i = 0, x}, i < 4 do
          x =
            if noted(Nx.remainder(i, 2), :r) == 0,
              do: noted(x + i, :even),
              else: noted(x, :odd) * 2

          {i + 1, x}
        end

      x
    end

    defn loop_in_branch(x, n) do
      if n > 0 do
        {_, x} =
          while {i = 0, x}, i < 2 do
            {i + 1, noted(x + 1, :body)}
          end

        noted(x, :done)
      else
        while x, noted(Nx.sum(x), :cond) < 8 do
          x + 1
        end
      end
    end

    defn loop_in_loop(x) do
      {_, x} =
        while {i = 0, x}, i < 3 do
          {_, x, _} =
            while {j = 0, x, i}, j < i do
              {j + 1, noted(x + j, :inner), i}
            end

          {i + 1, noted(x, :outer)}
        end

      x
    end

    defn branch_in_loop_in_branch(x) do
      if Nx.sum(x) > 0 do
        {_, x} =
          while {i = 0, x}, i < 3 do
            {i + 1, if(Nx.remainder(i, 2) == 0, do: noted(x * 2, :even), else: x - 1)}
          end

        x
      else
        x
      end
    end

    defn in_function(x) do
      {_, x} =
        while {i = 0, x}, i < 2 do
          {i + 1, inner(x) + inner(x)}
        end

      x
    end

    defn over_rows(x) do
      while acc = Nx.tensor(0.0), row <- x do
        acc + Nx.sum(noted(row, :row))
      end
    end

    defn over_range(x) do
      while acc = x, i <- 0..6, unroll: 2 do
        noted(acc + i, :acc)
      end
    end

    defn uncounted_around(x) do
      {x, _} =
        while {x, i = 0}, Nx.sum(x) < 50 do
          {_, x} =
            while {j = 0, x}, j < 2 do
              {j + 1, x + 1}
            end

          {noted(x, :x), i + 1}
        end

      x
    end

    test "calls in each iteration" do
      assert assert_same_calls(&in_body/1, [t([1, 2])]) == [:i, :x, :i, :x, :i, :x, :after]
      assert assert_same_calls(&in_condition/1, [t([1, 2])]) == [:sum, :sum, :sum, :sum]
      assert [:sum, :i, :x | _] = assert_same_calls(&in_condition_and_body/1, [t([1, 2])])
      assert assert_same_calls(&never/1, [t([1, 2])]) == []
      assert [_, _, _] = assert_same_calls(&over_rows/1, [t([[1, 2], [3, 4], [5, 6]])])
      assert [_, _, _, _, _, _, _] = assert_same_calls(&over_range/1, [t([1, 2])])
      assert [:inner, :inner, :inner, :inner] = assert_same_calls(&in_function/1, [t([1, 2])])
    end

    test "in all nestings" do
      assert [:r, :even, :r, :odd | _] = assert_same_calls(&branch_in_loop/1, [t([1, 2])])
      assert assert_same_calls(&loop_in_branch/2, [t([1, 2]), t(1)]) == [:body, :body, :done]
      assert [:cond | _] = assert_same_calls(&loop_in_branch/2, [t([1, 2]), t(0)])
      assert [:outer, :inner, :outer | _] = assert_same_calls(&loop_in_loop/1, [t([1, 2])])
      assert assert_same_calls(&branch_in_loop_in_branch/1, [t([1, 2])]) == [:even, :even]
      assert [:x | _] = assert_same_calls(&uncounted_around/1, [t([1, 2])])
    end
  end

  describe "gradients" do
    defn loss(x), do: Nx.sum(noted(Nx.exp(noted(x * x, :square)), :exp))

    defn loss_of_branch(x) do
      if Nx.sum(x) > 0 do
        y = noted(x * x, true)
        Nx.sum(y * Nx.exp(y))
      else
        Nx.sum(Nx.exp(noted(Nx.sin(x), false)))
      end
    end

    defn loss_of_loop(x) do
      {_, x} =
        while {i = 0, x}, i < 3 do
          {i + 1, noted(x * x, :x)}
        end

      Nx.sum(x)
    end

    test "call" do
      assert assert_same_calls(&grad(&1, fn x -> loss(x) end), [t([1, 2])]) == [:square]
      assert_same_calls(&value_and_grad(&1, fn x -> loss(x) end), [t([1, 2])])
    end

    test "call in the branch that is taken" do
      for {x, called} <- [{t([1, 2]), [true]}, {t([-1, -2]), [false]}] do
        assert assert_same_calls(&value_and_grad(&1, fn x -> loss_of_branch(x) end), [x]) ==
                 called

        assert assert_same_calls(&grad(&1, fn x -> loss_of_branch(x) end), [x]) == called
      end
    end

    test "call in loops" do
      assert [_, _, _ | _] =
               assert_same_calls(&grad(&1, fn x -> loss_of_loop(x) end), [t([0.5, 1])])

      assert [_, _, _ | _] =
               assert_same_calls(&value_and_grad(&1, fn x -> loss_of_loop(x) end), [t([0.5, 1])])
    end
  end
end
