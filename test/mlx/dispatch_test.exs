defmodule Mlx.DispatchTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples
  import Mlx.TestDevice, only: [device: 0]
  alias Mlx.{Backend, Native}

  describe "tensors of Nx.BinaryBackend" do
    test "are moved to where the other operands are" do
      for {a, b} <- [{sample(:f32), sample(:s32)}, {tensor(2, :u8), sample(:c64)}] do
        expected = Nx.add(a, b)
        assert_equivalent(Nx.add(mlx(a), b), expected)
        assert_equivalent(Nx.add(a, mlx(b)), expected)
      end
    end

    test "are moved from every argument" do
      x = mlx(sample(:f32))
      assert_equivalent(Nx.select(sample(:u8), x, 0.5), Nx.select(sample(:u8), sample(:f32), 0.5))

      assert_equivalent(
        Nx.concatenate([sample(:s8), x]),
        Nx.concatenate([sample(:s8), sample(:f32)])
      )

      assert_equivalent(
        Nx.slice(x, [tensor(1, :s32), 0], [1, 2]),
        Nx.slice(sample(:f32), [1, 0], [1, 2])
      )

      at = tensor([[0, 1]], :s32)
      assert_equivalent(Nx.gather(x, at), Nx.gather(sample(:f32), at))
    end

    test "stay what they are when all are" do
      assert %Nx.BinaryBackend{} = Nx.add(sample(:f32), 1).data
    end

    test "of types that MLX has not raise" do
      for type <- [:c128] do
        error = assert_raise Mlx.Error, fn -> Nx.add(mlx(sample(:f32)), tensor([1], type)) end
        assert error.kind == :type
      end
    end
  end

  describe "an operation that needs no more" do
    test "is one row, which takes one call" do
      [x, y, square] = for shape <- [{256}, {256}, {16, 16}], do: mlx(sample(:f32, shape))

      for {row, fun} <- [
            add: fn -> Nx.add(x, y) end,
            sum: fn -> Nx.sum(x) end,
            reshape: fn -> Nx.reshape(x, {16, 16}) end,
            slice: fn -> Nx.slice(x, [3], [100]) end,
            matmul: fn -> Nx.dot(square, square) end
          ] do
        assert calls(fun) == [stream_run: row]
      end
    end

    # Of the engine, which this process makes.
    defp calls(fun) do
      test = self()
      all = {Native, :_, :_}
      :erlang.trace_pattern(all, true, [:local])
      tracer = spawn_link(fn -> collect_calls(test, []) end)
      :erlang.trace(self(), true, [:call, {:tracer, tracer}])
      fun.()
      :erlang.trace(self(), false, [:call])
      :erlang.trace_pattern(all, false, [:local])
      delivered = :erlang.trace_delivered(self())
      assert_receive {:trace_delivered, ^test, ^delivered}, 60_000
      send(tracer, :tell)
      assert_receive {:calls, calls}, 60_000
      calls
    end

    defp collect_calls(test, calls) do
      receive do
        {:trace, ^test, :call, {_, function, [_target, row | _]}} ->
          collect_calls(test, [{function, row} | calls])

        :tell ->
          send(test, {:calls, Enum.reverse(calls)})
      end
    end
  end

  describe "an operation that fails" do
    test "raises where it is read, with its name and its operands" do
      failed = failed_add()

      for read <- [&Nx.to_binary/1, &Nx.to_binary(&1, limit: 1), &Mlx.eval/1, &Nx.backend_copy/1] do
        error = assert_raise Mlx.Error, fn -> read.(failed) end
        assert %{kind: :native, op: "add"} = error
        assert error.operands == [{"f32", {2}}, {"f32", {3}}]
        assert error.message =~ "add(f32[2], f32[3]): "
        assert error.message =~ "cannot be broadcast"
      end
    end

    test "poisons what depends on it, which names the first failure" do
      late = failed_add() |> Nx.exp() |> Nx.multiply(mlx(tensor(2, :f32))) |> Nx.sum()
      both = Nx.add(late, failed_add())

      for tensor <- [late, both] do
        error = assert_raise Mlx.Error, fn -> Nx.to_number(Nx.sum(tensor)) end
        assert error.op == "add"
      end
    end

    test "harms nothing else" do
      tensor = mlx(sample(:f32))
      failed = failed_add()
      assert_equivalent(Nx.negate(tensor), Nx.negate(sample(:f32)))
      assert Mlx.synchronize() == :ok
      assert Nx.backend_deallocate(failed) == :ok
    end

    test "fails eval of the container it is in" do
      good = mlx(sample(:f32))
      assert_raise Mlx.Error, fn -> Mlx.eval({good, %{bad: failed_add()}}) end
      assert_equivalent(good, sample(:f32))
    end

    test "can be started without raising" do
      failed = failed_add()
      assert Mlx.async_eval(failed) === failed
      assert_raise Mlx.Error, fn -> Mlx.eval(failed) end
    end

    test "fails in each process that reads it" do
      failed = failed_add()
      read = fn -> assert_raise(Mlx.Error, fn -> Nx.to_binary(failed) end).op end

      assert 1..8
             |> Enum.map(fn _ -> Task.async(read) end)
             |> Task.await_many(:infinity)
             |> Enum.uniq() ==
               ["add"]
    end
  end

  describe "processes" do
    test "compute side by side" do
      results =
        1..50
        |> Enum.map(fn i -> Task.async(fn -> chain(i, 40) end) end)
        |> Task.await_many(:infinity)

      assert results == for(i <- 1..50, do: i + 40)
    end

    test "share tensors" do
      shared = Nx.exp(mlx(sample(:f32)))
      expected = Nx.sum(Nx.exp(sample(:f32)))

      sums =
        1..20
        |> Enum.map(fn _ -> Task.async(fn -> Nx.sum(shared) end) end)
        |> Task.await_many(:infinity)

      for sum <- sums, do: assert_equivalent(sum, expected, ulps: 16)
    end

    test "that are killed while they read leave the rest alone" do
      for _ <- 1..20 do
        {pid, monitor} =
          spawn_monitor(fn ->
            x = Nx.broadcast(mlx(tensor(0.5, :f32)), {100, 100})
            Nx.to_binary(Enum.reduce(1..30, x, fn _, y -> Nx.dot(x, y) end))
          end)

        Process.sleep(:rand.uniform(3))
        Process.exit(pid, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^pid, _}
      end

      assert chain(0, 10) == 10
    end

    test "find no answers left in their mailbox" do
      tensor = mlx(sample(:f32))
      Nx.to_binary(Nx.exp(tensor))
      Mlx.eval(Nx.sin(tensor))
      Mlx.shape(Nx.cos(tensor))
      Mlx.synchronize()
      assert_raise Mlx.Error, fn -> Nx.to_binary(failed_add()) end
      assert Process.info(self(), :messages) == {:messages, []}
    end

    test "keep the messages they have" do
      for i <- 1..100, do: send(self(), {:message, i})
      assert chain(0, 10) == 10
      for i <- 1..100, do: assert_received({:message, ^i})
    end
  end

  describe "a long queue" do
    test "makes its process wait, and loses nothing" do
      assert chain(0, 20_000) == 20_000
    end

    test "of several processes does, too" do
      tasks = for i <- 1..4, do: Task.async(fn -> chain(i, 5000) end)
      assert Task.await_many(tasks, :infinity) == [5001, 5002, 5003, 5004]
    end

    test "of binaries keeps each until it is copied" do
      binaries = for i <- 1..500, do: :binary.copy(<<i::32-native>>, 1000)
      tensors = for binary <- binaries, do: Mlx.from_binary(binary, {1000}, :u32)
      :erlang.garbage_collect()
      assert Enum.map(tensors, &Mlx.to_binary/1) == binaries
    end

    test "may be forgotten before it is done" do
      for _ <- 1..500, do: Nx.exp(Nx.iota({1000}, type: :f32, backend: Backend))
      :erlang.garbage_collect()
      assert Mlx.synchronize() == :ok
    end
  end

  if :gpu in Mlx.Device.available() do
    describe "operands on different devices" do
      test "meet on the GPU, and scalars go where the others are" do
        [cpu, gpu] =
          for device <- [:cpu, :gpu], do: &Nx.backend_copy(&1, {Backend, device: device})

        {x, scalar} = {sample(:f32), tensor(2, :f32)}
        assert Nx.add(cpu.(x), gpu.(x)).data.device == :gpu
        assert Nx.add(cpu.(x), gpu.(scalar)).data.device == :cpu
        assert Nx.add(cpu.(scalar), gpu.(x)).data.device == :gpu
        assert Nx.add(cpu.(scalar), gpu.(scalar)).data.device == :gpu
        assert_equivalent(Nx.add(cpu.(x), gpu.(x)), Nx.add(x, x))
        assert_equivalent(Nx.add(cpu.(x), gpu.(scalar)), Nx.add(x, scalar))
      end

      test "leave f64 to the CPU" do
        gpu = {Backend, device: :gpu}
        error = assert_raise Mlx.Error, fn -> Nx.backend_copy(sample(:f64), gpu) end
        assert %{kind: :type, message: "GPUs have no f64" <> _} = error
      end
    end
  end

  # Nx rules such shapes out, so the engine is asked directly.
  defp failed_add do
    [a, b] = for size <- [2, 3], do: mlx(sample(:f32, {size}))

    {:ok, [ref]} =
      Native.stream_submit(device(), [{:add, [0, 1], []}], [a.data.ref, b.data.ref], [
        2
      ])

    %{a | data: %{a.data | ref: ref}}
  end

  defp chain(from, length) do
    one = mlx(tensor(1, :s64))

    Nx.to_number(
      Enum.reduce(1..length, mlx(tensor(from, :s64)), fn _, sum -> Nx.add(sum, one) end)
    )
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Backend)
end

defmodule Mlx.DispatchSyncTest do
  # How operations are dispatched is the same for all processes.
  use ExUnit.Case, async: false
  import ExUnit.CaptureLog

  setup do
    on_exit(fn -> configure(:pipelined) end)
    configure(:sync)
  end

  test "an operation raises at the call" do
    x = Nx.tensor([1.0], backend: Mlx.Backend)
    template = %{x | shape: {4}}
    error = assert_raise Mlx.Error, fn -> Mlx.Backend.reshape(template, x) end
    assert %{kind: :native, op: "reshape", operands: [{"f32", {1}}]} = error
  end

  test "what doesn't fail is the same" do
    x = Nx.iota({2, 3}, backend: Mlx.Backend)
    assert Nx.to_flat_list(Nx.add(x, Nx.sum(x))) == [15, 16, 17, 18, 19, 20]
  end

  test "an operation that fails raises later when pipelined" do
    configure(:pipelined)
    x = Nx.tensor([1.0], backend: Mlx.Backend)
    later = Mlx.Backend.reshape(%{x | shape: {4}}, x)
    assert_raise Mlx.Error, fn -> Nx.to_binary(later) end
  end

  defp configure(dispatch) do
    Application.put_env(:mlx, :dispatch, dispatch)
    capture_log(fn -> :ok = Application.stop(:mlx) end)
    :ok = Application.start(:mlx)
  end
end
