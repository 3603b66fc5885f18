defmodule Mlx.StreamTest do
  use ExUnit.Case, async: true

  import Mlx.OwnVm, only: [assert_alive: 1]
  alias Mlx.{RandomGraph, Stream}

  doctest Mlx.Stream

  # What is given to it raises, so that it is known what would have run there.
  defp closed do
    stream = Stream.new()
    :ok = Stream.close(stream)
    stream
  end

  defp assert_closed(fun) do
    error = assert_raise Mlx.Error, ~r/the stream is closed/, fun
    assert error.kind == :device
  end

  defp t(value), do: Nx.tensor(value, backend: Mlx.Backend)

  test "a stream has a device" do
    assert Stream.new().device == Mlx.TestDevice.device()
    assert %Stream{device: :cpu} = Stream.new(:cpu)
    assert Stream.new().device == Mlx.Device.default()
    assert_raise Mlx.Error, ~r/there is no device :tpu/, fn -> Stream.new(:tpu) end
  end

  describe "with_stream/2" do
    test "runs on the stream all that a process computes" do
      x = t([[2.0, 1.0], [1.0, 3.0]])
      host = Nx.tensor([1.0, 2.0], backend: Nx.BinaryBackend)
      held = Nx.backend_copy(x, {Mlx.Backend, device: :cpu})
      pointer = Nx.to_pointer(held, mode: :local)
      jit = &Nx.Defn.jit_apply(&1, &2, compiler: Mlx.Compiler)
      Nx.default_backend(Mlx.Backend)

      for fun <- [
            fn -> Nx.add(x, 1) end,
            fn -> Nx.iota({3}) end,
            fn -> Nx.tensor([1, 2, 3]) end,
            fn -> Nx.tensor([1, 2, 3], type: :u4) end,
            fn -> Nx.LinAlg.cholesky(x) end,
            fn -> Nx.reduce(x, 0, fn a, b -> Nx.add(a, b) end) end,
            fn -> Nx.backend_copy(x, Mlx.Backend) end,
            fn -> Nx.backend_copy(host, Mlx.Backend) end,
            fn -> Nx.from_pointer(Mlx.Backend, pointer, {:f, 32}, {4}) end,
            fn -> jit.(fn x -> Nx.exp(x) end, [x]) end,
            fn -> jit.(fn x -> Nx.exp(x) end, [host]) end
          ] do
        fun.()
        assert_closed(fn -> Stream.with_stream(closed(), fun) end)
      end

      assert Stream.with_stream(closed(), fn -> Nx.to_flat_list(x) end) == [2.0, 1.0, 1.0, 3.0]
      assert Nx.to_flat_list(held) == [2.0, 1.0, 1.0, 3.0]
    end

    test "nests, and restores what was before" do
      {one, two} = {Stream.new(), closed()}
      x = t(1)

      Stream.with_stream(one, fn ->
        assert Stream.current() == one
        assert_closed(fn -> Stream.with_stream(two, fn -> Nx.add(x, 1) end) end)
        assert Stream.current() == one
        assert catch_throw(Stream.with_stream(two, fn -> throw(:up) end)) == :up
        assert catch_exit(Stream.with_stream(two, fn -> exit(:up) end)) == :up
        assert Stream.current() == one
        assert Stream.with_stream(nil, &Stream.current/0) == nil
        assert Nx.to_number(Nx.add(x, 1)) == 2
      end)

      Stream.with_stream(two, fn ->
        assert Stream.with_stream(one, fn -> Nx.to_number(Nx.add(x, 1)) end) == 2
        assert Stream.with_stream(nil, fn -> Nx.to_number(Nx.add(x, 1)) end) == 2
      end)

      assert Stream.current() == nil
    end

    test "says nothing about other processes" do
      x = t(1)

      Stream.with_stream(closed(), fn ->
        task = Task.async(fn -> {Stream.current(), Nx.to_number(Nx.add(x, 1))} end)
        assert Task.await(task, :infinity) == {nil, 2}
      end)
    end

    test "gives the device of the stream where none is asked for" do
      stream = Stream.new()
      assert Stream.with_stream(stream, &Mlx.Device.default/0) == stream.device

      double = fn -> Nx.Defn.jit_apply(&Nx.multiply(&1, 2), [t(3)], compiler: Mlx.Compiler) end
      assert Stream.with_stream(stream, double).data.device == stream.device
      assert_closed(fn -> Stream.with_stream(closed(), double) end)
    end

    test "yields to the stream that a function was compiled for" do
      x = t(3)

      run =
        &Nx.Defn.jit_apply(fn x -> Nx.multiply(x, 2) end, [x], compiler: Mlx.Compiler, stream: &1)

      open = Stream.new()
      assert Stream.with_stream(closed(), fn -> Nx.to_number(run.(open)) end) == 6
      assert_closed(fn -> Stream.with_stream(open, fn -> run.(closed()) end) end)
    end

    test "holds for functions of the host that a compiled function calls" do
      test = self()
      stream = Stream.new()

      send_stream = fn x ->
        Nx.Defn.Kernel.io_call(x, fn _ -> send(test, Stream.current()) end)
      end

      Nx.Defn.jit_apply(send_stream, [t(1)], compiler: Mlx.Compiler, stream: stream)
      assert_received ^stream
      assert Stream.current() == nil
    end

    test "takes a stream and a function" do
      assert_raise FunctionClauseError, fn -> Stream.with_stream(:cpu, fn -> 1 end) end
      assert_raise FunctionClauseError, fn -> Stream.with_stream(Stream.new(), 1) end
    end
  end

  describe "synchronize/1" do
    test "waits for what was queued" do
      stream = Stream.new()
      m = Nx.broadcast(t(0.001), {300, 300})

      product =
        Stream.with_stream(stream, fn ->
          product = Enum.reduce(1..5, m, fn _, x -> Nx.dot(x, m) end)
          assert Stream.synchronize() == :ok
          product
        end)

      # It is at hand, so that nobody has to be asked.
      Mlx.async_eval(product)
      assert Stream.synchronize(stream) == :ok
      assert Stream.synchronize() == :ok
      assert Mlx.synchronize(stream) == :ok
      assert_in_delta Nx.to_number(product[0][0]), 0.001 * 0.3 ** 5, 1.0e-6
    end

    test "asks for a stream or a device that is there" do
      assert_closed(fn -> Stream.synchronize(closed()) end)
      assert_closed(fn -> Stream.with_stream(closed(), fn -> Stream.synchronize() end) end)
      assert_raise Mlx.Error, ~r/no device :tpu/, fn -> Stream.synchronize(:tpu) end
    end
  end

  describe "close/1" do
    test "leaves tensors as they are and does what is queued" do
      stream = Stream.new()
      ones = Nx.broadcast(t(1.0), {200, 200})

      {read, lazy} =
        Stream.with_stream(stream, fn ->
          read = Nx.add(ones, 1)
          Nx.to_binary(read)
          {read, Enum.reduce(1..50, ones, fn _, x -> Nx.dot(x, Nx.divide(ones, 200)) end)}
        end)

      assert Stream.close(stream) == :ok
      assert Stream.close(stream) == :ok
      assert Nx.to_number(read[3][4]) == 2.0
      assert Nx.to_number(Nx.sum(Nx.add(read, ones))) == 120_000.0
      assert_in_delta Nx.to_number(lazy[0][0]), 1.0, 1.0e-3

      other = Stream.new()
      assert Stream.with_stream(other, fn -> Nx.to_number(Nx.sum(read)) end) == 80_000.0
    end

    test "while others use the stream raises in them, or not" do
      stream = Stream.new()
      x = Nx.iota({100}, backend: Mlx.Backend)

      tasks =
        for _ <- 1..20 do
          Task.async(fn ->
            try do
              Stream.with_stream(stream, fn ->
                for _ <- 1..2000, do: Nx.to_number(Nx.sum(x))
              end)
            rescue
              error in Mlx.Error -> Exception.message(error)
            end
          end)
        end

      Process.sleep(20)
      Stream.close(stream)

      for result <- Task.await_many(tasks, :infinity) do
        assert result == "the stream is closed" or Enum.uniq(result) == [4950]
      end
    end
  end

  test "a stream of another node is refused" do
    stream = %Stream{ref: make_ref(), device: :cpu}

    for fun <-
          [&Stream.synchronize/1, &Stream.close/1] ++
            [&Stream.with_stream(&1, fn -> Nx.iota({3}, backend: Mlx.Backend) end)] do
      assert_raise Mlx.Error, ~r/the stream is not in this VM/, fn -> fun.(stream) end
    end
  end

  # On an NVIDIA GPU MLX has a thread for each stream, too, under the same name.
  @more if Mlx.TestDevice.device() == :gpu, do: 16, else: 8

  # Threads of the BEAM itself come and go.
  @threads """
  threads = fn ->
    for task <- File.ls!("/proc/self/task"),
        {:ok, "mlx" <> _} <- [File.read("/proc/self/task/\#{task}/comm")],
        do: task
  end
  count = fn -> length(threads.()) end
  """

  describe "ten thousand streams, one after the other," do
    for {how, close} <- [{"closed", "Mlx.Stream.close(stream)"}, {"let go of", ":ok"}] do
      test "that are #{how} leave threads and memory as they were" do
        assert_alive(
          @threads <>
            """
            x = Nx.iota({1000})

            run = fn count ->
              for _ <- 1..count do
                stream = Mlx.Stream.new()
                Mlx.Stream.with_stream(stream, fn -> 499_500 = Nx.to_number(Nx.sum(x)) end)
                #{unquote(close)}
              end
              :erlang.garbage_collect()
            end

            rss = fn ->
              [_, kb] = Regex.run(~r/VmRSS:\\s+(\\d+)/, File.read!("/proc/self/status"))
              String.to_integer(kb)
            end

            run.(1000)
            {before, memory} = {count.(), rss.()}
            active = Mlx.Memory.stats().active
            run.(10_000)
            true = count.() <= before + #{@more} || raise "\#{count.()} threads, \#{before} before"
            true = rss.() < memory + 30_000 || raise "\#{rss.()} KB, \#{memory} before"
            Mlx.synchronize()
            true = Mlx.Memory.stats().active <= active + 100_000
            IO.puts("threads \#{before} to \#{count.()}, KB \#{memory} to \#{rss.()}")
            """
        )
      end
    end

    test "and more at once than there may be are refused" do
      assert_alive("""
      streams = for _ <- 1..1000, do: Mlx.Stream.new()
      :device = refused.(fn -> for _ <- 1..100, do: Mlx.Stream.new() end)
      Enum.each(streams, &Mlx.Stream.close/1)
      stream = Mlx.Stream.new()
      6 = Mlx.Stream.with_stream(stream, fn -> Nx.to_number(Nx.sum(Nx.tensor([1, 2, 3]))) end)
      """)
    end
  end

  describe "random graphs over 8 streams and 64 processes" do
    test "give what one stream does" do
      for seed <- 1..3, do: assert_same_at_once(seed)
    end

    # SOAK_SECONDS=600 mix test --only soak
    @tag :soak
    @tag timeout: :infinity
    test "do so for minutes" do
      seconds = String.to_integer(System.get_env("SOAK_SECONDS", "120"))
      deadline = System.monotonic_time(:second) + seconds

      count =
        Enum.reduce_while(Elixir.Stream.iterate(100, &(&1 + 1)), 0, fn seed, count ->
          assert_same_at_once(seed)

          if System.monotonic_time(:second) < deadline,
            do: {:cont, count + 1},
            else: {:halt, count}
        end)

      IO.puts("#{count} graphs of 300 nodes over 8 streams and 64 processes in #{seconds} s")
    end

    defp assert_same_at_once(seed) do
      streams = for _ <- 1..8, do: Stream.new()
      graph = RandomGraph.new(seed, 300, 8)
      serial = RandomGraph.serially(graph)
      assert serial == RandomGraph.at_once(graph, streams, 64), "seed #{seed}"
    end
  end
end
