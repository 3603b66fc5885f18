defmodule Mlx.Compiler.HooksTest do
  @moduledoc """
  Functions of the host that are called from inside compiled ones, held against
  `Nx.Defn.Evaluator`: the same calls with the same values in the same order, and the same
  results.
  """

  use ExUnit.Case, async: true
  import ExUnit.CaptureIO
  import Mlx.Calls
  import Mlx.Oracle, only: [assert_identical: 2]
  import Nx.Defn

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  defp t(data, type \\ :f32), do: Nx.tensor(data, type: type)

  describe "io_call" do
    defn in_order(x, y) do
      a = noted(x + y, :a)
      b = noted(a * y, :b)
      {b, noted(x, :c), a}
    end

    defn through_functions(x), do: inner(noted(x, :outer)) + inner(x + 1)
    defnp(inner(x), do: noted(x * 2, :inner))

    defn unused(x) do
      _ = noted(x, :unused)
      x + 1
    end

    defn used_twice(x) do
      a = noted(x + 1, :once)
      a * Nx.exp(a)
    end

    defn of_containers(x, y) do
      {a, %{b: b}} = noted({x + y, %{b: x * y}}, :both)
      %{b: c} = noted(%{b: a - b}, :map)
      {c, noted({a, a}, :twice)}
    end

    defn constants_and_arguments(x) do
      {noted(Nx.tensor([1, 2]), :constant), noted(Nx.tensor(1.5), :number), noted(x, :argument)}
    end

    defn constants_again(x) do
      one = Nx.iota({2})
      {a, b} = noted({one, Nx.exp(x)}, :first)
      {c, d} = noted({one, x * b}, :second)
      {e, f} = noted({one, d - b}, :third)
      {a, b, c, d, e, f}
    end

    defn result_of_an_earlier_one(x) do
      y = Nx.exp(x)
      a = noted(y, :a)
      b = noted(y + 1, :b)
      c = noted({y, a + b}, :c)
      {c, y}
    end

    test "at the root" do
      assert assert_same_calls(&in_order/2, [t([1, 2]), t([3, 4])]) == [:a, :b, :c]
      assert assert_same_calls(&through_functions/1, [t([1, 2])]) == [:outer, :inner, :inner]
      assert assert_same_calls(&unused/1, [t([1, 2])]) == []
      assert assert_same_calls(&used_twice/1, [t([1, 2])]) == [:once]
    end

    test "of containers" do
      assert [:both, :map, :twice] = assert_same_calls(&of_containers/2, [t([1, 2]), t([3, 4])])
    end

    test "of what is known or given" do
      assert [_, _, _] = assert_same_calls(&constants_and_arguments/1, [t([1, 2])])
      assert [_, _, _] = assert_same_calls(&constants_again/1, [t([1, 2])])
      assert [_, _, _] = assert_same_calls(&result_of_an_earlier_one/1, [t([1, 2])])
    end

    test "of captured tensors" do
      # Only those of this backend can be among the data of an expression.
      captured = Nx.backend_copy(t([5, 6]), Nx.BinaryBackend)

      fun = fn x ->
        {a, b} = noted({captured, Nx.add(x, 1)}, :first)
        {c, d} = noted({captured, Nx.multiply(b, 2)}, :second)
        {a, c, noted(Nx.add(d, captured), :third)}
      end

      assert [:first, :second, :third] = assert_same_calls(fun, [t([1, 2])])
    end

    defn vectorized(x) do
      noted(x * 2, :vectorized) + noted(Nx.sum(x), :sum)
    end

    test "of vectorized tensors" do
      x = Nx.vectorize(t([[1, 2], [3, 4], [5, 6]]), :v)
      assert assert_same_calls(&vectorized/1, [x]) == [:vectorized, :sum]

      # The evaluator's arguments have lost their vectorized axes by then.
      {got, [{:argument, [seen], _}]} = calls(&noted(&1, :argument), [x], compiler: Mlx.Compiler)
      assert_identical(got, x)
      assert seen.vectorized_axes == [v: 3]
    end

    for type <- Mlx.TestDevice.types([:u2, :s4, :u8, :s64, :f8, :bf16, :f64, :c64]) do
      test "of #{type}" do
        x = Nx.as_type(t([0, 1]), unquote(type))
        {_, [{:x, [seen], _}]} = calls(&noted(&1, :x), [x], compiler: Mlx.Compiler)
        assert seen.type == x.type
        assert seen.numbers == Nx.to_flat_list(x)
      end
    end
  end

  describe "named io_call" do
    defn named(x) do
      a = io_call(x + 1, :first)
      io_call(a * 2, :second, &note(:default, &1))
    end

    test "is what it is given" do
      x = t([1, 2])
      assert assert_same_calls(&named/1, [x]) == [:default]
      first = %{first: &note(:given, &1)}
      assert assert_same_calls(&named/1, [x], hooks: first) == [:given, :default]
      second = %{second: &note(:instead, &1)}
      assert assert_same_calls(&named/1, [x], hooks: second) == [:instead]

      assert assert_same_calls(&named/1, [x], hooks: Map.merge(first, second)) == [
               :given,
               :instead
             ]
    end

    test "that nobody listens to divides no program" do
      fun = fn x -> Nx.multiply(Nx.io_call(Nx.add(x, 1), :nobody), 2) end
      assert %{steps: [{:run, _, _, _}]} = Mlx.Compiler.program(fun, [t([1])])
      plan = Mlx.Compiler.program(fun, [t([1])], hooks: %{nobody: &note(:x, &1)})
      assert [{:run, _, _, _}, {:host, _, _, {:call, _, _}}, {:run, _, _, _}] = plan.steps
    end
  end

  describe "hook" do
    # Deprecated, and still there.
    deftransform(hooked(x, name), do: apply(Nx.Defn.Kernel, :hook, [x, name]))

    deftransform(hooked(x, name, tag),
      do: apply(Nx.Defn.Kernel, :hook, [x, name, &note(tag, &1)])
    )

    deftransform(hooked_fun(x, tag), do: apply(Nx.Defn.Kernel, :hook, [x, &note(tag, &1)]))

    defn hooks(x), do: hooked_fun(hooked(hooked(x + 1, :a) * 2, :b, :default) - 3, :fun)

    test "is io_call" do
      assert assert_same_calls(&hooks/1, [t([1, 2])]) == [:default, :fun]
      hooks = %{a: &note(:a, &1), b: &note(:b, &1)}
      assert assert_same_calls(&hooks/1, [t([1, 2])], hooks: hooks) == [:a, :b, :fun]
    end
  end

  describe "printing" do
    defn printed(x) do
      y = print_value(x + 1, label: "y")
      {y, if(Nx.sum(y) > 0, do: print_value(y * 2, &Nx.sum/1), else: y)}
    end

    test "of values" do
      for x <- [t([1, 2]), t([-3, -4])] do
        run = &capture_io(fn -> Nx.Defn.jit_apply(fn x -> printed(x) end, [x], compiler: &1) end)
        assert run.(Mlx.Compiler) == run.(Nx.Defn.Evaluator)
        assert run.(Mlx.Compiler) =~ "y: #Nx.Tensor"
      end
    end

    defn printed_expression(x), do: print_expr(Nx.exp(x) + 1)

    test "of expressions, when they are compiled" do
      fun = Nx.Defn.jit(&printed_expression/1, compiler: Mlx.Compiler)
      assert capture_io(fn -> fun.(t([1, 2])) end) =~ "exp"
      assert capture_io(fn -> fun.(t([1, 2])) end) == ""
    end
  end

  describe "runtime_call" do
    def cumulated(x, opts) do
      note(:cumulated, x)
      Nx.add(Nx.cumulative_sum(x), opts[:plus] || 0)
    end

    def taken_apart({x, %{y: y}}, _opts) do
      note(:taken_apart, {x, y})
      %{difference: Nx.subtract(x, y), sums: {Nx.sum(x), Nx.sum(y)}}
    end

    def of_another_shape(x, _opts), do: Nx.sum(x)
    def of_another_backend(x, _opts), do: Nx.backend_copy(x, Nx.BinaryBackend)

    defn cumulate(x), do: Nx.runtime_call(x * 1, x + 1, [plus: 2], &cumulated/2) * 2

    defn take_apart(x, y) do
      like = %{difference: x, sums: {Nx.sum(x), Nx.sum(x)}}
      %{difference: a, sums: {b, _}} = Nx.runtime_call(like, {x, %{y: y}}, &taken_apart/2)
      noted(a, :a) * b
    end

    defn in_a_loop(x) do
      {_, x} =
        while {i = 0, x}, i < 3 do
          x = if Nx.remainder(i, 2) == 0, do: Nx.runtime_call(x, x, &cumulated/2), else: x + 1
          {i + 1, x}
        end

      x
    end

    defn wrong(x), do: Nx.runtime_call(x, x, &of_another_shape/2)
    defn elsewhere(x), do: Nx.runtime_call(x, x, &of_another_backend/2) + 1

    test "gives what the function gives" do
      assert assert_same_calls(&cumulate/1, [t([1, 2])]) == [:cumulated]
      assert assert_same_calls(&take_apart/2, [t([1, 2]), t([3, 4])]) == [:taken_apart, :a]
      assert assert_same_calls(&in_a_loop/1, [t([1, 2])]) == [:cumulated, :cumulated]
    end

    test "of other backends" do
      {result, []} = calls(&elsewhere/1, [t([1, 2])], compiler: Mlx.Compiler)
      assert_identical(result, t([2, 3]))
    end

    test "raises for results of other shapes" do
      for compiler <- [Nx.Defn.Evaluator, Mlx.Compiler] do
        assert_raise RuntimeError, ~r/match the given output template/, fn ->
          calls(&wrong/1, [t([1, 2])], compiler: compiler)
        end
      end
    end
  end

  describe "a callback" do
    test "runs in the process that calls" do
      fun = Nx.Defn.jit(&noted(&1, :x), compiler: Mlx.Compiler)

      for _ <- 1..3 do
        Task.await(
          Task.async(fn ->
            fun.(Nx.tensor([1.0], backend: Mlx.Backend))
            assert [{:x, _, caller}] = made()
            assert caller == self()
          end),
          :infinity
        )
      end
    end

    test "may call compiled functions, also the one it is in" do
      double = Nx.Defn.jit(&Nx.multiply(&1, 2), compiler: Mlx.Compiler)
      test = self()

      fun = fn depth ->
        fn x ->
          Nx.io_call(Nx.add(x, 1), fn y ->
            if depth > 0, do: send(test, {depth, Nx.to_number(Nx.sum(double.(y)))})
          end)
          |> Nx.multiply(3)
        end
      end

      outer = fn x ->
        Nx.io_call(Nx.exp(x), fn y ->
          inner = Nx.Defn.jit_apply(fun.(1), [Nx.as_type(y, :s32)], compiler: Mlx.Compiler)
          send(test, {:inner, Nx.to_flat_list(inner)})
        end)
      end

      result = Nx.Defn.jit_apply(outer, [t([0, 1])], compiler: Mlx.Compiler)
      assert_received {1, 10}
      assert_received {:inner, [6, 9]}
      assert_identical(result, Nx.exp(t([0, 1])))
    end

    test "may raise, throw and exit" do
      fun = fn what ->
        Nx.Defn.jit(
          fn x -> Nx.multiply(Nx.io_call(Nx.add(x, 1), fn _ -> what.() end), 2) end,
          compiler: Mlx.Compiler
        )
      end

      for _ <- 1..3 do
        assert_raise ArithmeticError, fn -> fun.(fn -> raise ArithmeticError end).(t([1])) end
        assert catch_throw(fun.(fn -> throw(:ball) end).(t([1]))) == :ball
        assert catch_exit(fun.(fn -> exit(:stage) end).(t([1]))) == :stage
        assert_identical(fun.(fn -> :ok end).(t([1])), t([4]))
      end
    end

    test "may raise in a loop and in a branch" do
      fun = fn x ->
        if_large = fn x, at ->
          Nx.io_call(x, fn y -> if Nx.to_number(y) > at, do: raise(ArithmeticError) end)
        end

        Nx.Defn.jit_apply(&raising(&1, if_large), [x], compiler: Mlx.Compiler)
      end

      assert_raise ArithmeticError, fn -> fun.(t(1)) end
      assert_identical(fun.(t(-40)), t(-33))
    end

    # The calls of one invocation see only its own values.
    test "of many processes at once" do
      fun = Nx.Defn.jit(&in_a_loop_too(&1), compiler: Mlx.Compiler)

      seen = fn n ->
        start()
        fun.(Nx.tensor([n, n], type: :f32, backend: Mlx.Backend))
        [{:after, [seen], _} | _] = made()
        {n, seen.numbers}
      end

      for {:ok, {n, seen}} <- Task.async_stream(1..20, seen, timeout: :infinity),
          do: assert(seen == [n * 8.0, n * 8.0])
    end
  end

  defn in_a_loop_too(x) do
    {_, x} =
      while {i = 0, x}, i < 3 do
        {i + 1, noted(x * 2, :x)}
      end

    noted(x, :after)
  end

  defn raising(x, if_large) do
    {_, x} =
      while {i = 0, x}, i < 7 do
        {i + 1, if(x > 2, do: if_large.(x + 1, 6), else: x + 1)}
      end

    x
  end
end
