defmodule Mlx.Compiler.ExpressionTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle, only: [assert_identical: 2, assert_same: 2]
  import Mlx.Programs
  import Nx.Defn

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  @f32 Nx.template({2}, :f32)

  describe "what is shared" do
    defn shared(x) do
      y = Nx.exp(x)
      {y + y * x, y - 1}
    end

    defn twice_given(x), do: {x, x, Nx.exp(x), Nx.exp(x), {x, 1}}

    test "runs once" do
      assert Enum.count(rows(&shared/1, [@f32]), &(&1 == :exp)) == 1
      assert_same(&twice_given/1, [t([1, 2])])
    end

    defn one_branch(x, y) do
      costly = Nx.exp(x)
      if Nx.sum(y) > 0, do: costly * 2, else: y
    end

    defn two_branches(x, y) do
      costly = Nx.exp(x)
      if Nx.sum(y) > 0, do: costly * 2, else: costly - y
    end

    defn two_conds(x, y) do
      costly = Nx.exp(x)
      a = if Nx.sum(y) > 0, do: costly * 2, else: y
      b = if Nx.sum(y) > 5, do: costly * 3, else: y
      {a, b}
    end

    defn branch_and_outside(x, y) do
      costly = Nx.exp(x)
      {if(Nx.sum(y) > 0, do: costly * 2, else: y), costly}
    end

    test "by branches of one cond is computed in them" do
      assert [%{inner: [on_true, on_false]}] = conds(&one_branch/2)
      assert :exp not in outer(&one_branch/2)
      assert :exp in on_true and :exp not in on_false

      assert [%{inner: [on_true, on_false]}] = conds(&two_branches/2)
      assert :exp not in outer(&two_branches/2)
      assert :exp in on_true and :exp in on_false
    end

    test "by several conds or with what is around is computed once, outside" do
      for fun <- [&two_conds/2, &branch_and_outside/2] do
        assert Enum.count(rows(fun, [@f32, @f32]), &(&1 == :exp)) == 1
        assert :exp in outer(fun)
      end
    end

    test "is right" do
      for fun <- [&one_branch/2, &two_branches/2, &two_conds/2, &branch_and_outside/2],
          y <- [t([1, 1]), t([3, 3]), t([-1, -1])] do
        {got, expected} = both(fun, [t([1, 2]), y])
        assert_identical(got, expected)
      end
    end

    defp conds(fun), do: for(%{row: :cond} = row <- tree(fun, [@f32, @f32]), do: row)
    defp outer(fun), do: for(%{row: row} <- tree(fun, [@f32, @f32]), do: row)
  end

  describe "a captured tensor" do
    defn with_tensors(x, opts \\ []) do
      [a, b, c] = opts[:tensors]

      {_, x} =
        while {i = 0, x}, Nx.sum(x) < 10 do
          {i + 1, if(Nx.sum(x) > 5, do: x + a, else: x * b + 1)}
        end

      x * c
    end

    test "crosses once, wherever it is used" do
      [a, b, c] = for n <- 1..3, do: Nx.tensor([n / 2, 3.0], backend: Nx.BinaryBackend)
      plan = &Mlx.Compiler.program(fn x -> with_tensors(x, tensors: &1) end, [@f32])
      [count] = constants(plan.([a, a, a]))
      assert constants(plan.([a, b, c])) == [count + 2]
      assert constants(plan.([a, a, c])) == [count + 1]

      for tensors <- [[a, a, a], [a, b, c]] do
        {got, expected} = both(&with_tensors(&1, tensors: tensors), [t([0.5, 1])])
        assert_identical(got, expected)
      end
    end

    test "of a closure tells it from others" do
      for n <- 1..3 do
        fun = fn x -> Nx.add(x, Nx.tensor([n, n])) end
        got = Nx.Defn.jit_apply(fun, [t([1, 2])], compiler: Mlx.Compiler)
        assert_identical(got, t([1 + n, 2 + n]))
      end
    end
  end

  describe "what is no operation" do
    test "costs nothing" do
      fun = fn x -> x |> Nx.Defn.Kernel.stop_grad() |> Nx.io_call(:nobody) |> Nx.devectorize() end
      assert rows(fun, [@f32]) == []
      assert_identical(Nx.Defn.jit_apply(fun, [t([1, 2])], compiler: Mlx.Compiler), t([1, 2]))
    end

    test "may be a number, a constant or an argument" do
      fun = fn x, y -> {1, Nx.tensor([1, 2]), y, {x, 2.5}} end
      {got, expected} = both(fun, [t([1, 2]), t(3)])
      assert_identical(got, expected)
      {got, expected} = both(fn -> {1, Nx.iota({3})} end, [])
      assert_identical(got, expected)
    end
  end

  describe "what can't be compiled" do
    test "is told" do
      error =
        catch_error(Nx.Defn.jit_apply(&Nx.as_type(&1, :c128), [t([1])], compiler: Mlx.Compiler))

      assert %Mlx.Error{kind: :type} = error
    end
  end

  # Time is taken of a function that is already traced, by the reductions of this process,
  # which depend less on what else the machine does.
  describe "large expressions" do
    for {name, step} <- [
          chain: quote(do: fn acc, x -> Nx.add(Nx.multiply(acc, x), 1) end),
          cond: quote(do: fn acc, _x -> Mlx.Compiler.ExpressionTest.clipped(acc) end),
          while: quote(do: fn acc, _x -> Mlx.Compiler.ExpressionTest.raised(acc) end),
          call: quote(do: fn acc, _x -> Nx.io_call(Nx.add(acc, 1), &Function.identity/1) end)
        ] do
      test "compile in linear time (#{name})" do
        compile = fn count ->
          fun = fn x -> Enum.reduce(1..count, x, fn _, acc -> unquote(step).(acc, x) end) end
          expr = Nx.Defn.debug_expr_apply(fun, [@f32])
          options = Mlx.Compiler.Options.new!([])
          {:reductions, before} = Process.info(self(), :reductions)
          Mlx.Compiler.Executable.compile(fn _ -> expr end, [@f32], options)
          {:reductions, now} = Process.info(self(), :reductions)
          now - before
        end

        assert compile.(5000) < 20 * compile.(500)
      end
    end
  end

  defn clipped(x), do: if(Nx.sum(x) > 1, do: x * 0.5, else: x + 1)
  defn raised(x), do: while(x, Nx.sum(x) < 1, do: x + 1)

  defp t(data), do: Nx.tensor(data, type: :f32)

  defp both(fun, args) do
    {Nx.Defn.jit_apply(fun, args, compiler: Mlx.Compiler),
     Nx.Defn.jit_apply(fun, args, compiler: Nx.Defn.Evaluator)}
  end
end
