defmodule Mlx.Compiler.PlanTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle, only: [assert_identical: 2]
  import Mlx.Programs
  import Nx.Defn
  alias Mlx.Compiler.{Executable, Expression, Options, Program}
  alias Mlx.Graph

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  @f32 Nx.template({2}, :f32)

  defn called(x, y) do
    a = io_call(Nx.exp(x), &Function.identity/1)
    {a * y, x + 1}
  end

  describe "a plan" do
    test "is one program if the host does nothing" do
      fun = fn x, y -> {Nx.add(x, y), {Nx.sum(x), y}} end
      assert %{steps: [{:run, [0, 1], _, _}], inputs: [0, 1]} = plan(fun, [@f32, @f32])
    end

    test "computes before a call what is called with, and nothing else" do
      assert [first, {:host, _, [], {:call, _, _}}, second] = plan(&called/2, [@f32, @f32]).steps
      assert {:run, [0], [exp], program} = first
      assert {_, [{:exp, [0], []}], [1]} = Program.code(program)
      assert {:run, inputs, _, program} = second
      {_, instructions, _} = Program.code(program)
      assert Enum.sort(inputs) == [0, 1, exp]
      assert for({row, _, _} <- instructions, do: row) |> Enum.sort() == [:add, :multiply]
    end

    test "gives the host a constant once" do
      fun = fn x ->
        k = Nx.iota({2})
        {_, x} = Nx.io_call({k, Nx.exp(x)}, &send(self(), {:first, to_list(&1)}))
        {_, x} = Nx.io_call({k, Nx.sin(x)}, &send(self(), {:second, to_list(&1)}))
        Nx.multiply(x, k)
      end

      places = for {:run, _, results, _} <- plan(fun, [@f32]).steps, result <- results, do: result
      assert places == Enum.uniq(places)
      result = run(fun, [t([0, 1])])
      assert_received {:first, [[0, 1], [1.0, e]]}
      assert_received {:second, [[0, 1], [_, sin]]}
      assert_in_delta e, :math.exp(1), 1.0e-6
      assert_in_delta sin, :math.sin(:math.exp(1)), 1.0e-6
      assert_in_delta Nx.to_number(result[1]), sin, 1.0e-9
    end

    defp to_list(tensors), do: for(t <- Tuple.to_list(tensors), do: Nx.to_flat_list(t))
  end

  describe "constants" do
    test "are made once if they are small" do
      fun = fn x -> Nx.add(Nx.multiply(x, Nx.iota({2})), Nx.eye(2)) end
      assert Enum.sort(rows(fun, [@f32])) == [:add, :multiply]
      assert constants(plan(fun, [@f32])) == [2]
    end

    test "are made at each run if they are large" do
      fun = fn x -> Nx.add(x, Nx.iota({5000}, type: :f32)) end
      assert :arange in rows(fun, [Nx.template({5000}, :f32)])
      assert constants(plan(fun, [Nx.template({5000}, :f32)])) == [0]
    end

    test "that are numbers have the shape of the result, unless kernels are compiled" do
      x = Nx.Defn.Expr.parameter(Nx.template({300, 200}, :f32), :root, 0)

      shapes = fn fun, fuse ->
        options = %{device: Mlx.Device.default(), hooks: %{}, fuse: fuse}
        expr = Nx.with_default_backend(Nx.BinaryBackend, fn -> fun.(x) end)
        {%{outputs: [node]}, _tensors} = Expression.trace([expr], options)
        for operand <- node.operands, do: {operand.shape, Graph.constant?(operand)}
      end

      doubled = &Nx.multiply(&1, 2)
      assert {{300, 200}, true} in shapes.(doubled, false)
      assert {{}, true} in shapes.(doubled, true)
      assert rows(doubled, [Nx.template({300, 200}, :f32)]) == [:multiply]

      # As a constant, what is large would be held against the limit of memory.
      large = Nx.Defn.Expr.parameter(Nx.template({1000, 1000}, :f32), :root, 0)
      assert {{}, true} in shapes.(fn _ -> Nx.multiply(large, 2) end, false)

      # A power looks at the number.
      assert {{}, true} in shapes.(&Nx.pow(&1, 2), false)
    end

    test "of whatever shape give what they give elsewhere" do
      small = t([[0.5, -2.0, 3.0]])
      large = Nx.iota({100, 100}, type: :f32)

      for x <- [small, large, Nx.as_type(small, :s32), Nx.as_type(small, :bf16), Nx.sum(small)] do
        fun = fn x ->
          y = Nx.multiply(2, Nx.add(x, 1)) |> Nx.max(0) |> Nx.min(7) |> Nx.subtract(3)

          {y, Nx.select(Nx.greater(y, 1), 0, y), Nx.divide(y, 4), Nx.broadcast(4, x)}
        end

        bare = Nx.backend_copy(x, Nx.BinaryBackend)

        assert_identical(
          run(fun, [x]),
          Nx.with_default_backend(Nx.BinaryBackend, fn -> fun.(bare) end)
        )
      end
    end

    test "may be all there is" do
      assert %{steps: [{:run, [], [_], _}], inputs: []} = plan(fn -> Nx.iota({3}) end, [])
      assert_identical(run(fn -> Nx.iota({3}) end, []), Nx.iota({3}))
    end
  end

  describe "arguments" do
    test "that nothing depends on are not fetched" do
      executable = executable(fn x, _y, z -> {Nx.add(x, z), Nx.shape(z) |> elem(0)} end, 3)
      args = [fn -> t([1, 2]) end, fn -> flunk("it is not used") end, fn -> t([3, 4]) end]
      {sum, _} = Executable.run(executable, args, Options.new!([]))
      assert_identical(sum, t([4, 6]))
    end

    test "that only a call needs are" do
      fun = fn x, _y, z -> Nx.add(x, elem(Nx.io_call({x, z}, &send(self(), {:got, &1})), 0)) end
      args = [fn -> t([1, 2]) end, fn -> flunk("it is not used") end, fn -> t([3, 4]) end]
      sum = Executable.run(executable(fun, 3), args, Options.new!([]))
      assert_identical(sum, t([2, 4]))
      assert_received {:got, {_, z}}
      assert_identical(z, t([3, 4]))
    end

    test "are fetched once" do
      fun = fn -> send(self(), :fetched) && t([1, 2]) end
      double = executable(fn x -> Nx.add(x, x) end, 1)
      assert_identical(Executable.run(double, [fun], Options.new!([])), t([2, 4]))
      assert_received :fetched
      refute_received :fetched
    end

    defp executable(fun, count) do
      vars = for at <- 0..(count - 1), do: Nx.Defn.Expr.parameter(@f32, :root, at)

      Executable.compile(
        fn vars -> apply(fun, vars) |> Nx.Defn.Composite.traverse(&Nx.Defn.Expr.tensor/1) end,
        vars,
        Options.new!([])
      )
    end
  end

  describe "donated arguments" do
    test "are let go of" do
      {x, y} = {t([1, 2]), t([3, 4])}
      assert_identical(run(&Nx.add/2, [Nx.donatable(x), y]), t([4, 6]))
      assert_gone(x)
      assert_identical(y, t([3, 4]))
    end

    test "are let go of when a call divides the program" do
      {x, y} = {t([0, 0]), t([3, 4])}
      {a, b} = run(&called/2, [Nx.donatable(x), Nx.donatable(y)])
      assert_identical({a, b}, {t([3, 4]), t([1, 1])})
      assert_gone(x)
      assert_gone(y)
    end

    test "stay where the host may have kept them" do
      x = t([1, 2])
      test = self()
      fun = fn x -> Nx.add(Nx.io_call(x, &send(test, {:kept, &1})), 1) end
      assert_identical(run(fun, [Nx.donatable(x)]), t([2, 3]))
      assert_received {:kept, kept}
      assert_identical(kept, t([1, 2]))
    end

    test "may be given twice" do
      for second <- [& &1, &Nx.donatable/1] do
        x = t([1, 2])
        assert_identical(run(&Nx.add/2, [Nx.donatable(x), second.(x)]), t([2, 4]))
        x = t([0, 0])
        {a, b} = run(&called/2, [Nx.donatable(x), second.(x)])
        assert_identical({a, b}, {t([0, 0]), t([1, 1])})
      end
    end

    test "may be the result, which is not" do
      x = t([1, 2])
      result = run(fn x -> x end, [Nx.donatable(x)])
      assert_identical(result, t([1, 2]))
      refute Nx.donatable?(result)
      assert_gone(x)
    end

    test "keep what was computed from them before" do
      x = t([1, 2])
      y = Nx.add(x, 1)
      run(&Nx.exp/1, [Nx.donatable(x)])
      assert_identical(y, t([2, 3]))
    end

    test "of other backends stay" do
      x = Nx.tensor([1.0, 2.0], backend: Nx.BinaryBackend)
      assert_identical(run(&Nx.add(&1, 1), [Nx.donatable(x)]), t([2, 3]))
      assert Nx.to_flat_list(x) == [1.0, 2.0]
    end

    defp assert_gone(x) do
      assert_raise Mlx.Error, ~r/deallocated/, fn -> Nx.to_binary(x) end
    end
  end

  describe "loops" do
    defn counted(x), do: while({x, i = 0}, i < 10, do: {x + i, i + 1}) |> elem(0)
    defn counted_down(x), do: while({x, i = 10}, 0 < i, do: {x + i, i - 2}) |> elem(0)

    defn over_range(x) do
      while x, i <- 0..9 do
        x + i
      end
    end

    defn by_a_varying_step(x), do: while({x, i = 0}, i < 10, do: {x + i, i + i + 1}) |> elem(0)

    defn to_a_varying_bound(x, n),
      do: while({x, i = 0, n}, i < n, do: {x + i, i + 1, n}) |> elem(0)

    defn until_large(x), do: while(x, Nx.sum(x) < 10, do: x + 1)

    test "that count read nothing back" do
      for fun <- [&counted/1, &counted_down/1, &over_range/1] do
        assert :repeat in rows(fun, [@f32])
        refute :while in rows(fun, [@f32])
        assert_identical(run(fun, [t([1, 2])]), Nx.Defn.jit_apply(fun, [t([1, 2])]))
      end
    end

    test "that don't count have a condition" do
      assert :while in rows(&by_a_varying_step/1, [@f32])
      assert :while in rows(&until_large/1, [@f32])
      assert :while in rows(&to_a_varying_bound/2, [@f32, Nx.template({}, :s32)])
      assert_identical(run(&to_a_varying_bound/2, [t([1, 2]), 3]), t([4, 5]))
      assert_identical(run(&by_a_varying_step/1, [t([0, 0])]), t([11, 11]))
    end
  end

  describe "inspect" do
    defn in_a_branch(x) do
      if Nx.any(x) do
        while x, Nx.all(x) do
          io_call(x * x, &Function.identity/1)
        end
      else
        x
      end
    end

    test "shows programs, calls, branches and loops, and what is in them" do
      # What there is, without what it is made of.
      outline =
        for line <- plan(&in_a_branch/1, [@f32]) |> inspect() |> String.split("\n"),
            not (line =~ ~r/^ *(r\d+ =|=>)/),
            do: String.replace(line, ~r/v\d+/, "v")

      assert outline == [
               "#Mlx.Compiler.Plan<",
               "  [v] = run [v]",
               "  [v] = cond [v, v]",
               "    [v] = while [v]",
               "      [v] = run [v]",
               "    and",
               "      [v] = run [v]",
               "      [] = call [v]",
               "      [v] = run [v]",
               "    [v] = run [v]",
               "  and",
               "    [v] = run [v]",
               "  [v] = run [v]",
               ">"
             ]
    end

    test "shows programs in programs" do
      assert inspect(plan(fn x -> until_large(x) end, [@f32])) == """
             #Mlx.Compiler.Plan<
               [v1] = run [v0]
                 r3 = while(r0, r1, r2)
                   program
                     r3 = sum(r0, [0], false)
                     r4 = less(r3, r1)
                     r5 = cast(r4, {:u, 8})
                     => r5
                   program
                     r3 = add(r2, r0)
                     => r3
                 => r3
             >\
             """
    end

    test "shows several results and calls that are made once" do
      text = inspect(plan(&shared/1, [@f32]))
      assert text =~ "= token []"
      assert Regex.scan(~r/\[\] = once/, text) |> length() == 2
      assert inspect(plan(&Nx.LinAlg.qr/1, [Nx.template({2, 2}, :f32)])) =~ "=> r1, r2"
    end

    defn shared(x) do
      y = io_call(x + 1, &Function.identity/1)
      {if(Nx.any(x), do: y, else: x), if(Nx.all(x), do: y * 2, else: x)}
    end
  end

  test "a program is printed when it is compiled, if asked for" do
    options = [compiler: Mlx.Compiler, debug_options: [print: true]]
    print = fn -> Nx.Defn.jit_apply(&Nx.exp/1, [t([1, 2])], options) end
    assert ExUnit.CaptureIO.capture_io(print) =~ "exp(r0)"
  end

  defp plan(fun, args), do: Mlx.Compiler.program(fun, args)
  defp run(fun, args), do: Nx.Defn.jit_apply(fun, args, compiler: Mlx.Compiler)
  defp t(data), do: Nx.tensor(data, type: :f32)
end
