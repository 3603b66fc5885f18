defmodule Mlx.TelemetryTest.Functions do
  @moduledoc false
  import Nx.Defn

  defn looped(x) do
    y = if Nx.sum(x) > 0, do: Nx.exp(x), else: Nx.cos(x)
    y = io_call(y, &Function.identity/1)

    {_, y} =
      while {i = 0, y}, i < 3 do
        {i + 1, y * 2 + 1}
      end

    y
  end

  # Ends when nobody holds the result any more.
  defn forever(x) do
    while x, x >= 0, do: x * 1
  end
end

defmodule Mlx.TelemetryTest do
  # The default logger is one for all.
  use ExUnit.Case, async: false
  import ExUnit.CaptureLog
  import Mlx.Samples
  alias __MODULE__.Functions
  doctest Mlx.Telemetry

  setup context do
    test = self()
    suffixes = [:start, :stop, :exception]

    spans =
      for name <- [:eval, :to_binary, :compile], suffix <- suffixes, do: [:mlx, name, suffix]

    single = [[:mlx, :compile, :hit], [:mlx, :stream], [:mlx, :memory]]
    :telemetry.attach_many(context.test, spans ++ single, &__MODULE__.forward/4, test)
    on_exit(fn -> :telemetry.detach(context.test) end)
  end

  # Handlers run in the process of the event, and other tests have events, too.
  def forward(event, measurements, metadata, test) do
    if self() == test, do: send(test, {event, measurements, metadata})
  end

  test "a read is a span" do
    Nx.to_binary(mlx(sample(:f32, {2, 3})))
    assert_received {[:mlx, :to_binary, :start], %{system_time: _, monotonic_time: _}, metadata}
    described = %{shape: {2, 3}, type: {:f, 32}, byte_size: 24, device: Mlx.TestDevice.device()}
    assert Map.take(metadata, Map.keys(described)) == described
    assert_received {[:mlx, :to_binary, :stop], %{duration: duration}, ^metadata}
    assert duration > 0
    refute_received {[:mlx | _], _, _}
  end

  test "the size is that of the whole of a vectorized tensor" do
    tensor = Nx.vectorize(mlx(sample(:f32, {2, 3})), :rows)
    binary = Nx.to_binary(tensor)
    assert_received {[:mlx, :to_binary, :stop], _, %{byte_size: size}}
    assert size == byte_size(binary)
  end

  test "eval is one span for all tensors" do
    Mlx.eval({mlx(sample(:c64, {3})), mlx(tensor(1, :u16))})
    assert_received {[:mlx, :eval, :start], _, %{tensors: 2, byte_size: 26, devices: devices}}
    assert devices == [Mlx.TestDevice.device()]
    assert_received {[:mlx, :eval, :stop], _, %{tensors: 2}}
    refute_received {[:mlx | _], _, _}
  end

  test "operations and async_eval are none" do
    tensor = mlx(sample(:f32))
    Mlx.async_eval(Nx.add(tensor, tensor))
    refute_received {[:mlx | _], _, _}
  end

  test "printing reads only what it shows" do
    inspect(mlx(sample(:u8, {1000})), limit: 5)
    assert_received {[:mlx, :to_binary, :stop], _, %{byte_size: 6}}
    refute_received {[:mlx, :to_binary, :stop], _, _}
  end

  test "a read that fails is an exception" do
    tensor = mlx(sample(:f32))
    Nx.backend_deallocate(tensor)
    assert_raise Mlx.Error, fn -> Nx.to_binary(tensor) end
    assert_received {[:mlx, :to_binary, :exception], %{duration: _}, metadata}
    assert %{kind: :error, reason: %Mlx.Error{}, stacktrace: [_ | _], shape: {3, 5}} = metadata
  end

  test "waiting for what failed is an exception" do
    tensor = mlx(sample(:f32))
    huge = Nx.broadcast(tensor, {1_000_000, 1_000_000, 3, 5})
    assert_raise Mlx.Error, fn -> Mlx.eval(huge) end
    assert_received {[:mlx, :eval, :start], _, metadata}
    assert_received {[:mlx, :eval, :exception], %{duration: _}, failed}
    assert %{kind: :error, reason: %Mlx.Error{kind: :memory}, stacktrace: [_ | _]} = failed
    assert Map.take(failed, Map.keys(metadata)) == metadata
    refute_received {[:mlx, :eval, :stop], _, _}
  end

  test "the catalogue has the events that the sources emit, and no others" do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Mlx.Telemetry)

    emitted =
      for path <- Path.wildcard("lib/**/*.ex"),
          [_, kind, name] <-
            Regex.scan(~r/elemetry\.(execute|span)\(\s*\[?((?::\w+(?:, )?)+)/, File.read!(path)),
          name = name |> String.trim_trailing(", ") |> String.replace_prefix(":mlx, ", ""),
          name != ":mlx",
          do: "[:mlx, #{name}#{if kind == "span", do: ", …"}]"

    rows = for [_, event] <- Regex.scan(~r/^\| `(\[:mlx[^`]+\])` \|/m, doc), do: event
    assert Enum.sort(rows) == emitted |> Enum.uniq() |> Enum.sort()
    assert length(rows) > 8
  end

  describe "compiling" do
    test "is a span with the number of instructions, and then a hit" do
      fun = fn x -> Nx.add(Nx.exp(x), Nx.tensor(1.0)) end
      opts = [compiler: Mlx.Compiler]
      Nx.Defn.jit_apply(fun, [mlx(sample(:f32))], opts)
      described = %{function: fun, device: Mlx.TestDevice.device(), fuse: false}
      miss = Map.put(described, :cache, :miss)
      assert_received {[:mlx, :compile, :start], _, %{cache: :miss}}
      assert_received {[:mlx, :compile, :stop], %{duration: taken, nodes: 2}, metadata}
      assert Map.take(metadata, Map.keys(miss)) == miss and taken > 0
      refute_received {[:mlx, :compile | _], _, _}

      Nx.Defn.jit_apply(fun, [mlx(sample(:f32))], opts)
      hit = Map.put(described, :cache, :hit)
      assert_received {[:mlx, :compile, :hit], %{duration: looked, nodes: 2}, ^hit}
      assert looked > 0
      refute_received {[:mlx, :compile | _], _, _}
    end

    test "counts the instructions of branches, loops and parts between host calls" do
      x = mlx(sample(:f32))
      opts = [compiler: Mlx.Compiler, cache: false]
      Nx.Defn.jit_apply(&Functions.looped/1, [x], opts)
      assert_received {[:mlx, :compile, :stop], %{nodes: nodes}, %{cache: :off}}
      program = inspect(Mlx.Compiler.program(&Functions.looped/1, [x]))
      assert nodes == length(Regex.scan(~r/ = \w+\(/, program))
      assert nodes > 4
    end

    test "that fails is an exception" do
      fun = fn x -> Nx.as_type(x, :c128) end
      jit = Nx.Defn.jit(fun, compiler: Mlx.Compiler)
      assert_raise Mlx.Error, fn -> jit.(mlx(sample(:f32))) end
      assert_received {[:mlx, :compile, :exception], %{duration: _}, %{reason: %Mlx.Error{}}}
    end
  end

  describe "polled measurements" do
    test "tell the work of each stream, and none when it is done" do
      stream = Mlx.Stream.new()
      Mlx.synchronize()
      Mlx.Telemetry.execute_streams()
      depths = received_depths()
      assert stream.device in for({_, device, _} <- depths, do: device)
      for {name, device, _} <- depths, do: assert(String.starts_with?(name, "mlx-#{device}-"))
    end

    test "count what waits" do
      stream = Mlx.Stream.new()
      busy = Nx.Defn.jit(&Functions.forever/1, compiler: Mlx.Compiler, stream: stream)
      results = for _ <- 1..20, do: busy.(mlx(0))
      Mlx.Telemetry.execute_streams()
      assert received_depths() |> Enum.map(&elem(&1, 2)) |> Enum.max() >= 20
      Enum.each(results, &Nx.backend_deallocate/1)
    end

    test "tell the memory" do
      kept = Mlx.eval(mlx(Nx.iota({1024}, type: :s32)))
      Mlx.Telemetry.execute_memory()
      assert_received {[:mlx, :memory], %{active: active, peak: _, cache: _, limit: _}, metadata}
      assert active >= Nx.byte_size(kept) and metadata == %{}
    end

    defp received_depths do
      receive do
        {[:mlx, :stream], %{queue_depth: depth}, %{stream: stream, device: device}} ->
          [{stream, device, depth} | received_depths()]
      after
        0 -> []
      end
    end
  end

  test "nothing of telemetry is called for an operation" do
    tensor = mlx(sample(:f32, {4, 4}))
    test = self()

    {:ok, worker} =
      Task.start_link(fn ->
        receive do: (:go -> :ok)

        operations =
          Nx.add(tensor, 1) |> Nx.dot(tensor) |> Nx.sum(axes: [0]) |> Nx.reshape({2, 2})

        send(test, {:done, operations})
        receive do: (:read -> Nx.to_binary(operations))
        send(test, :read)
      end)

    :erlang.trace_pattern({:telemetry, :_, :_}, true, [:local])
    :erlang.trace(worker, true, [:call])
    send(worker, :go)
    assert_receive {:done, _}
    delivered = :erlang.trace_delivered(worker)
    assert_receive {:trace_delivered, ^worker, ^delivered}
    refute_received {:trace, ^worker, :call, _}
    # The trace does see what there is to see.
    send(worker, :read)
    assert_receive {:trace, ^worker, :call, {:telemetry, :span, _}}
    assert_receive :read
  after
    :erlang.trace_pattern({:telemetry, :_, :_}, false, [:local])
  end

  describe "the default logger" do
    setup do
      on_exit(&Mlx.Telemetry.detach_default_logger/0)
    end

    test "has a line for each event" do
      :ok = Mlx.Telemetry.attach_default_logger(level: :info)
      fun = fn x -> Nx.negate(x) end
      jit = Nx.Defn.jit(fun, compiler: Mlx.Compiler)

      log =
        capture_log([level: :info], fn ->
          jit.(mlx(sample(:f32, {2, 3}))) |> Nx.to_binary()
          jit.(mlx(sample(:f32, {2, 3}))) |> Mlx.eval()
          Mlx.Telemetry.execute_streams()
          Mlx.Telemetry.execute_memory()
        end)

      device = Mlx.TestDevice.device()
      assert log =~ ~r/mlx\.to_binary took \d+ µs: f32\[2\]\[3\], 24 bytes, #{device}/
      assert log =~ ~r/mlx\.eval took \d+ µs: 1 tensors, 24 bytes, #{device}/
      assert log =~ ~r/mlx\.compile took \d+ µs: .* on #{device}, 1 nodes, cache miss/
      assert log =~ ~r/mlx\.compile took \d+ µs: .* on #{device}, 1 nodes, cache hit/
      assert log =~ ~r/mlx\.stream: mlx-#{device}-\d+ has \d+ jobs/
      assert log =~ ~r/mlx\.memory: active \d+, cache \d+, /
      assert Mlx.Telemetry.attach_default_logger() == {:error, :already_exists}
    end

    test "warns of failures and fallbacks at any level" do
      :ok = Mlx.Telemetry.attach_default_logger(events: [:to_binary, :fallback])
      tensor = mlx(sample(:f32))
      Nx.backend_deallocate(tensor)
      error = %Mlx.Error{kind: :type, op: "cast", message: "no such type"}

      log =
        capture_log([level: :warning], fn ->
          assert_raise Mlx.Error, fn -> Nx.to_binary(tensor) end
          Mlx.Telemetry.fallback(&Nx.add/2, error)
        end)

      assert log =~ "mlx.to_binary failed after"
      assert log =~ "the tensor was deallocated"
      assert log =~ "mlx.fallback: &Nx.add/2 runs with Nx.Defn.Evaluator: no such type"
    end

    test "logs what it was asked for, and nothing after it is detached" do
      :ok = Mlx.Telemetry.attach_default_logger(level: :info, events: [:memory])

      both = fn ->
        Mlx.Telemetry.execute_memory()
        Mlx.Telemetry.execute_streams()
      end

      log = capture_log([level: :info], both)
      assert log =~ "mlx.memory" and not (log =~ "mlx.stream")
      :ok = Mlx.Telemetry.detach_default_logger()
      refute capture_log([level: :info], both) =~ "mlx."
    end

    test "refuses what it does not know" do
      assert_raise ArgumentError, ~r/unknown keys/, fn ->
        Mlx.Telemetry.attach_default_logger(colour: :red)
      end

      assert_raise ArgumentError, ~r/:events.*:frob/, fn ->
        Mlx.Telemetry.attach_default_logger(events: [:frob])
      end

      assert_raise ArgumentError, ~r/:level/, fn ->
        Mlx.Telemetry.attach_default_logger(level: :loud)
      end
    end
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)
end
