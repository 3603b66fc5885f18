defmodule Mlx.Compiler.CacheTest do
  # What other tests compile would change how much is kept.
  use ExUnit.Case
  import Mlx.Oracle, only: [assert_identical: 2]
  alias Mlx.Compiler.Cache

  setup do
    Nx.default_backend(Mlx.Backend)
    Mlx.Compiler.clear_cache()
    test = self()
    name = "#{inspect(test)} compiles"
    :telemetry.attach(name, [:mlx, :compile, :start], &__MODULE__.forward/4, test)
    on_exit(fn -> :telemetry.detach(name) end)
  end

  def forward(_event, _measurements, metadata, test), do: send(test, {:compiled, metadata})

  def double(x), do: Nx.multiply(x, 2)

  defp run(fun, args, opts \\ []),
    do: Nx.Defn.jit_apply(fun, args, [compiler: Mlx.Compiler] ++ opts)

  defp t(data, opts \\ [type: :f32]), do: Nx.tensor(data, opts)

  defp compilations do
    receive do
      {:compiled, _} -> 1 + compilations()
    after
      0 -> 0
    end
  end

  describe "a program is compiled once" do
    test "for a function and a signature" do
      for _ <- 1..3, do: run(&double/1, [t([1, 2])])
      assert compilations() == 1
      assert Mlx.Compiler.cache_info().entries == 1
    end

    test "for each type, shape, name and vectorized axis" do
      args = [
        t([1, 2]),
        t([1, 2, 3]),
        t([1, 2], type: :s32),
        t([1, 2], type: :f32, names: [:x]),
        Nx.vectorize(t([1, 2]), :v),
        Nx.vectorize(t([1, 2]), :w),
        Nx.donatable(t([1, 2]))
      ]

      for _ <- 1..2, x <- args do
        expected = double(x)
        # A donated one is gone after the first time.
        x = if x.donatable?, do: x |> Nx.backend_copy() |> Nx.donatable(), else: x
        assert_identical(run(&double/1, [x]), expected)
      end

      assert compilations() == length(args)
    end

    test "for each set of options that changes it" do
      for _ <- 1..2 do
        run(&double/1, [t([1])])
        run(&double/1, [t([1])])
        run(&double/1, [t([1])], garbage_collect: true)
        run(&double/1, [t([1])], device: Mlx.TestDevice.device())
        run(&double/1, [t([1])], debug_options: [dispatch: :sync])
      end

      assert compilations() == 1
      run(&double/1, [t([1])], hooks: %{a: &Function.identity/1})
      assert compilations() == 1
      run(&double/1, [t([1])], fallback: :evaluator)
      assert compilations() == 1
    end

    test "when many processes ask at once" do
      test = self()

      fun = fn x ->
        send(test, :traced)
        Process.sleep(20)
        Nx.add(x, 1)
      end

      1..1000
      |> Task.async_stream(&(Nx.to_number(run(fun, [&1])) - &1),
        max_concurrency: 1000,
        timeout: :infinity
      )
      |> Enum.each(&assert(&1 == {:ok, 1}))

      assert_received :traced
      refute_received :traced
    end
  end

  describe "functions share no program" do
    test "that captured other tensors, numbers or functions" do
      for n <- 1..3 do
        tensor = Nx.tensor([n], backend: Nx.BinaryBackend)
        assert run(&Nx.add(&1, tensor), [t([1])]) |> Nx.to_flat_list() == [n + 1.0]
        assert run(&Nx.add(&1, n), [t([1])]) |> Nx.to_flat_list() == [n + 1.0]
        callback = fn x -> send(self(), {n, Nx.to_flat_list(x)}) end
        run(&Nx.io_call(&1, callback), [t([1])])
        assert_received {^n, [1.0]}
      end

      assert compilations() == 9
    end

    test "of two versions of a module" do
      for n <- 1..2 do
        Code.compiler_options(ignore_module_conflict: true)
        Code.eval_string("defmodule Mlx.CacheTest.Version, do: def(f(x), do: Nx.add(x, #{n}))")
        Code.compiler_options(ignore_module_conflict: false)
        fun = Function.capture(Mlx.CacheTest.Version, :f, 1)
        assert run(fun, [t([1])]) |> Nx.to_flat_list() == [n + 1.0]
      end
    end
  end

  test "nothing is kept with `cache: false`" do
    for _ <- 1..2, do: run(&double/1, [t([1])], cache: false)
    assert compilations() == 2
    assert Mlx.Compiler.cache_info().entries == 0
  end

  test "compiled functions stay when the cache is cleared" do
    fun = Nx.Defn.compile(&double/1, [Nx.template({1}, :f32)], compiler: Mlx.Compiler)
    Mlx.Compiler.clear_cache()
    assert_identical(fun.(t([1])), t([2]))
    assert compilations() == 1
  end

  test "what was not used for the longest time goes" do
    %{limit: limit} = Mlx.Compiler.cache_info()
    for n <- 1..limit, do: Cache.fetch({:test, n}, fn -> n end)
    Process.sleep(2)
    assert Cache.fetch({:test, 1}, fn -> flunk("it is there") end) == {:hit, 1}
    Process.sleep(2)
    for n <- 1..(2 * limit), do: Cache.fetch({:more, n}, fn -> n end)
    :sys.get_state(Cache)
    assert Mlx.Compiler.cache_info().entries <= limit
    assert Cache.fetch({:more, 2 * limit}, fn -> flunk("it is there") end) == {:hit, 2 * limit}
    assert Cache.fetch({:test, 2}, fn -> :again end) == {:miss, :again}
  end

  describe "a compilation that" do
    test "fails is tried again" do
      test = self()

      fun = fn x ->
        send(test, :traced)
        Nx.reshape(x, {7})
      end

      for _ <- 1..2 do
        assert_raise ArgumentError, fn -> run(fun, [t([1])]) end
        assert_received :traced
      end
    end

    test "is killed is done by one who waits" do
      test = self()

      compile = fn ->
        send(test, {:compiling, self()})
        receive do: (:go -> :compiled)
      end

      [first, second] =
        for _ <- 1..2 do
          {:ok, pid} = Task.start(fn -> send(test, {:got, Cache.fetch(:killed, compile)}) end)
          pid
        end

      assert_receive {:compiling, one}
      assert one in [first, second]
      refute_receive {:compiling, _}, 20
      Process.exit(one, :kill)
      assert_receive {:compiling, other}
      assert other in [first, second] and other != one
      send(other, :go)
      assert_receive {:got, {:miss, :compiled}}
      assert Cache.fetch(:killed, fn -> flunk("it is there") end) == {:hit, :compiled}
    end

    test "runs itself does not wait for itself" do
      assert Cache.fetch(:inside, fn -> {:outer, Cache.fetch(:inside, fn -> :inner end)} end) ==
               {:miss, {:outer, {:miss, :inner}}}
    end
  end

  describe "what is kept is small, though an expression has many ways through it," do
    defmodule Deep do
      import Nx.Defn

      # Each of these has twice as many as the one before.
      deftransform doubled(x), do: Enum.reduce(1..16, x, fn _, x -> Nx.add(x, Nx.sin(x)) end)

      defn noted(x), do: io_call(doubled(x), fn _ -> :ok end)
      defn branch(x), do: if(x > 0, do: noted(x), else: x)
    end

    defp kept, do: Cache |> :ets.tab2list() |> :erts_debug.flat_size()

    test "if functions of the host get it" do
      for fun <- [&Deep.noted/1, &Deep.branch/1], do: run(fun, [t(1.0)])
      run(&Nx.runtime_call(&1, Deep.doubled(&1), fn x, _ -> x end), [t(1.0)])
      assert Mlx.Compiler.cache_info().entries == 3
      assert kept() < 20_000
    end

    test "if functions have captured it" do
      expr = Nx.Defn.debug_expr(&Deep.doubled/1).(t(1.0))
      stages = Nx.Defn.Graph.split(expr, fn _ -> :none end)

      Nx.Defn.default_options(compiler: Mlx.Compiler)

      for _ <- 1..2,
          do: assert_identical(Nx.Defn.Graph.run(stages, [t(1.0)]), Deep.doubled(t(1.0)))

      assert compilations() == 1
      assert kept() < 20_000
    end

    test "and functions that have captured others differ" do
      run_captured = fn fun ->
        Nx.Defn.jit_apply(
          fn x ->
            inner = Nx.Defn.jit(fn y -> Nx.multiply(y, fun.(x)) end, on_conflict: :reuse)
            inner.(x)
          end,
          [t(3.0)],
          compiler: Mlx.Compiler
        )
      end

      assert_identical(run_captured.(&Nx.add(&1, 1)), t(12.0))
      assert_identical(run_captured.(&Nx.subtract(&1, 1)), t(6.0))
    end
  end
end
