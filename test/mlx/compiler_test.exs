defmodule Mlx.CompilerTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO
  import Mlx.Oracle
  import Mlx.Samples
  import Nx.Defn

  doctest Mlx.Compiler

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  @opts [compiler: Mlx.Compiler, device: Mlx.TestDevice.device()]

  defn smooth(x), do: Nx.tanh(x * 2 + 1) / Nx.sum(Nx.exp(x))

  describe "is used by" do
    test "jit, jit_apply and compile" do
      x = tensor([0.5, 1.0], :f32)
      expected = smooth(x)
      mlx = Nx.backend_copy(x, Mlx.Backend)

      for fun <- [
            Nx.Defn.jit(&smooth/1, @opts),
            &Nx.Defn.jit_apply(fn x -> smooth(x) end, [&1], @opts),
            Nx.Defn.compile(&smooth/1, [Nx.template({2}, :f32)], @opts)
          ] do
        assert fun.(mlx).data.device == Mlx.TestDevice.device()
        assert_equivalent(fun.(mlx), expected, ulps: 16)
        # Arguments of other backends are copied.
        assert_equivalent(fun.(x), expected, ulps: 16)
      end
    end

    test "default options" do
      previous = Nx.Defn.default_options(@opts)

      try do
        assert_compiles(fn -> smooth(Nx.tensor([1.0, 2.0, 3.0])) end)
      after
        Nx.Defn.default_options(previous)
      end
    end

    test "Nx.Defn.to_backend" do
      assert Nx.Defn.to_backend(@opts) == {Mlx.Backend, [device: Mlx.TestDevice.device()]}
    end
  end

  test "functions without arguments and without results" do
    assert Nx.to_number(Nx.Defn.jit_apply(fn -> Nx.add(1, 2) end, [], @opts)) == 3
    assert Nx.Defn.jit_apply(fn _x -> {} end, [1], @opts) == {}
  end

  test "containers, options and vectorized tensors" do
    fun = fn %{a: a, b: {b, c}}, options ->
      %{sum: Nx.add(a, b), rest: {c, Nx.sum(a, options)}}
    end

    x = mlx(sample(:f32, {2, 3}, names: [:x, :y]))
    args = [%{a: x, b: {x, mlx(tensor(3, :s32))}}, [axes: [:x]]]
    got = Nx.Defn.jit_apply(fun, args, @opts)
    assert %{sum: %{names: [:x, :y]}, rest: {_, %{names: [:y]}}} = got
    assert_identical(got, apply(fun, args))

    vectorized = Nx.vectorize(x, :x)
    got = Nx.Defn.jit_apply(&Nx.sum(Nx.multiply(&1, 2)), [vectorized], @opts)
    assert got.vectorized_axes == [x: 2]
    assert_identical(got, Nx.sum(Nx.multiply(vectorized, 2)))
  end

  test "calls return before anything is computed" do
    fun = fn x -> Enum.reduce(1..40, x, fn _, x -> Nx.dot(x, x) end) end
    compiled = Nx.Defn.compile(fun, [Nx.template({512, 512}, :f32)], @opts)
    x = mlx(Nx.eye({512, 512}, backend: Nx.BinaryBackend, type: :f32))
    Mlx.eval(compiled.(x))
    {queued, result} = :timer.tc(fn -> compiled.(x) end)
    {computed, _} = :timer.tc(fn -> Mlx.eval(result) end)
    assert queued < computed
  end

  test "results of one call are the arguments of the next without being read" do
    step = Nx.Defn.compile(fn x -> Nx.add(x, 1) end, [Nx.template({4}, :s32)], @opts)
    result = Enum.reduce(1..1000, mlx(tensor([0, 1, 2, 3], :s32)), fn _, x -> step.(x) end)
    assert Nx.to_list(result) == [1000, 1001, 1002, 1003]
  end

  test "a stream of its own" do
    stream = Mlx.Stream.new()
    fun = Nx.Defn.jit(&smooth/1, compiler: Mlx.Compiler, stream: stream)
    x = mlx(tensor([0.5, 1.0], :f32))
    # Results of one stream are operands in another.
    assert_identical(Nx.add(fun.(fun.(x)), x), Nx.add(smooth(smooth(x)), x))
  end

  test "failures name the op when a result is read, or at the call" do
    fun = fn x -> Nx.LinAlg.determinant(Nx.broadcast(x, {1_000_000, 1_000_000})) end
    result = Nx.Defn.jit_apply(fun, [1.0], @opts)
    assert_raise Mlx.Error, ~r/bytes are too many/, fn -> Nx.to_number(result) end

    assert_raise Mlx.Error, fn ->
      Nx.Defn.jit_apply(fun, [1.0], @opts ++ [debug_options: [dispatch: :sync]])
    end

    assert Nx.to_number(Nx.Defn.jit_apply(&Nx.add(&1, 1), [1], @opts)) == 2
  end

  describe "what can't be compiled" do
    # A fold runs on whole slices, in which elements can't branch.
    defn branching(x) do
      Nx.reduce(x, 0, fn a, b -> if a > b, do: a, else: b end)
    end

    test "raises" do
      assert_raise Mlx.Error, ~r/cond/, fn -> Nx.Defn.jit_apply(&branching/1, [x()], @opts) end
    end

    test "runs with the evaluator where that is allowed, which is told" do
      events = attach([:mlx, :fallback])
      opts = @opts ++ [fallback: :evaluator]
      x = Nx.backend_copy(x(), Nx.BinaryBackend)

      Nx.with_default_backend(Nx.BinaryBackend, fn ->
        assert Nx.to_number(Nx.Defn.jit_apply(&branching/1, [x], opts)) == 3
      end)

      assert_received {^events, %{system_time: _}, %{op: "reduce", error: %Mlx.Error{}}}
    end

    defp x, do: mlx(tensor([1, 3, 2], :s32))
  end

  test "a compilation is a span" do
    events = attach([:mlx, :compile, :stop])
    fun = fn x -> Nx.subtract(x, 12_345) end
    for _ <- 1..2, do: Nx.Defn.jit_apply(fun, [1], @opts)
    assert_received {^events, %{duration: _}, %{function: ^fun}}
    refute_received {^events, _, %{function: ^fun}}
    Nx.Defn.jit_apply(fun, [1], @opts ++ [cache: false])
    assert_received {^events, _, %{function: ^fun}}
  end

  test "programs are printed when they are compiled" do
    opts = @opts ++ [debug_options: [print: true], cache: false]
    printed = capture_io(fn -> Nx.Defn.jit_apply(&Nx.cos/1, [1.0], opts) end)
    assert printed =~ "cos(r0)"
  end

  describe "fused" do
    def long_chain(x, y) do
      Enum.reduce(1..30, x, fn i, x ->
        x |> Nx.multiply(0.5) |> Nx.add(Nx.divide(y, i)) |> Nx.subtract(Nx.abs(x))
      end)
    end

    defn fused_loop(x) do
      {_, x} =
        while {i = 0, x}, i < 50 do
          {i + 1, x * 0.99 + i}
        end

      x
    end

    defn fused_branch(x) do
      if Nx.sum(x) > 0, do: Nx.sqrt(Nx.abs(x)) + 1, else: x * x - 1
    end

    defn fused_until(x) do
      while x, Nx.sum(Nx.abs(x)) < 1000 do
        x * 1.5 + Nx.sign(x)
      end
    end

    defn fused_products(x) do
      {value, grad} =
        value_and_grad(x, fn x -> Nx.sum(Nx.exp(Nx.dot(x, Nx.transpose(x)) * 0.01)) end)

      {value, grad, Nx.transpose(Nx.dot(x, x))}
    end

    # Each program is compiled to kernels by the C++ compiler.
    @tag timeout: 600_000
    test "programs give the same but for rounding" do
      x = sample(:f32, {4, 4}) |> Nx.remainder(3)

      for {fun, args} <- [
            {&long_chain/2, [x, Nx.multiply(x, 2)]},
            {&fused_loop/1, [x]},
            {&fused_branch/1, [x]},
            {&fused_branch/1, [Nx.negate(Nx.abs(x))]},
            {&fused_until/1, [Nx.add(x, 0.5)]},
            {&fused_products/1, [x]},
            {&smooth/1, [x]}
          ] do
        args = Enum.map(args, &mlx/1)
        plain = Nx.Defn.jit_apply(fun, args, @opts)
        fused = Nx.Defn.jit_apply(fun, args, @opts ++ [fuse: true])
        expected = Nx.Defn.Composite.traverse(plain, &Nx.backend_copy(&1, Nx.BinaryBackend))
        assert_equivalent(fused, expected, ulps: 64, scale: 1.0, signed_zero: false)
      end
    end
  end

  defp assert_compiles(fun) do
    events = attach([:mlx, :compile, :stop])
    fun.()
    assert_received {^events, _, _}
  end

  # Events reach only the process whose calls they are of.
  defp attach(event) do
    {id, self} = {make_ref(), self()}

    :telemetry.attach(id, event, &__MODULE__.forward/4, {self, id})
    on_exit(fn -> :telemetry.detach(id) end)
    id
  end

  @doc false
  def forward(_event, measurements, metadata, {pid, id}) do
    if self() == pid, do: send(pid, {id, measurements, metadata})
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)
end
