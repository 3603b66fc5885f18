defmodule Mlx.ServingTest do
  use ExUnit.Case, async: true

  import Mlx.AtOnce
  alias Mlx.Oracle
  alias Nx.Batch

  # What hangs fails, and soon, where no kernels have to be compiled.
  @moduletag timeout: if(Mlx.TestDevice.device() == :gpu, do: 300_000, else: 30_000)

  defmodule Model do
    import Nx.Defn

    def weights do
      key = Nx.Random.key(7)
      {first, key} = Nx.Random.normal(key, 0.0, 0.4, shape: {6, 16})
      {second, _key} = Nx.Random.normal(key, 0.0, 0.4, shape: {16, 3})
      {first, second}
    end

    defn predict({first, second}, rows) do
      scores = rows |> Nx.dot(first) |> Nx.max(0) |> Nx.dot(second)
      exps = Nx.exp(scores - Nx.reduce_max(scores, axes: [1], keep_axes: true))
      exps / Nx.sum(exps, axes: [1], keep_axes: true)
    end

    # Branches and loops on what is in the batch.
    defn collatz(rows) do
      {rows, steps, _} =
        while {rows, steps = rows * 0, at = 0}, at < 20 do
          next = Nx.select(Nx.remainder(rows, 2) == 0, Nx.quotient(rows, 2), 3 * rows + 1)
          {Nx.select(rows == 1, 1, next), steps + (rows != 1), at + 1}
        end

      cond do
        Nx.all(rows == 1) -> steps
        Nx.any(rows == 1) -> steps * 10
        true -> steps * 100
      end
    end

    defn watched(rows) do
      doubled = io_call(rows * 2, :doubled)
      io_call(Nx.sum(doubled, axes: [1]) + 1, :summed)
    end
  end

  defp binary(fun), do: Nx.with_default_backend(Nx.BinaryBackend, fun)

  defp weights do
    binary(&Model.weights/0)
  end

  # All partitions share the weights.
  defp model(opts \\ []) do
    weights = Nx.backend_copy(weights(), Mlx.Backend)

    Nx.Serving.new(
      fn opts ->
        predict = Nx.Defn.jit(&Model.predict/2, opts)
        &predict.(weights, &1)
      end,
      options(opts)
    )
  end

  defp serving(fun, opts \\ []), do: Nx.Serving.jit(fun, options(opts))

  defp options(opts), do: [compiler: Mlx.Compiler] ++ opts

  defp rows(count, seed) do
    binary(fn -> Nx.Random.key(seed) |> Nx.Random.normal(shape: {count, 6}) |> elem(0) end)
  end

  defp expected(rows) do
    weights = weights()
    binary(fn -> Nx.Defn.jit(&Model.predict/2, compiler: Nx.Defn.Evaluator).(weights, rows) end)
  end

  defp assert_predicts(got, rows) do
    Oracle.assert_equivalent(got, expected(rows), ulps: 32)
  end

  defp start(serving, opts) do
    name = Module.concat(__MODULE__, "Serving#{System.unique_integer([:positive])}")
    opts = Keyword.merge([serving: serving, name: name, batch_timeout: 5], opts)
    start_supervised!({Nx.Serving, opts}, id: name)
    name
  end

  describe "run/2" do
    test "gives what the evaluator does" do
      for backend <- [Nx.BinaryBackend, Mlx.Backend], size <- [1, 5] do
        rows = rows(size, 1)
        batch = rows |> Nx.backend_copy(backend) |> Nx.to_batched(1) |> Enum.to_list()
        assert_predicts(Nx.Serving.run(model(), Batch.concatenate(batch)), rows)
      end
    end

    test "with a function that is compiled beforehand, for batches that are filled up" do
      weights = weights()

      serving =
        Nx.Serving.new(
          fn opts ->
            rows = Nx.template({4, 6}, :f32)
            compiled = Nx.Defn.compile(&Model.predict(weights, &1), [rows], opts)
            fn batch -> compiled.(Batch.pad(batch, 4 - batch.size)) end
          end,
          options([])
        )

      rows = rows(3, 2)
      got = Nx.Serving.run(serving, Batch.concatenate([rows]))
      assert_predicts(got[0..2], rows)
    end

    test "with loops and branches" do
      for numbers <- [[1, 2, 3], [1, 27, 3], [27, 97, 871]] do
        batch = Batch.concatenate([Nx.tensor(numbers, backend: Nx.BinaryBackend)])
        got = Nx.Serving.run(serving(&Model.collatz/1), batch)

        expected =
          binary(fn ->
            Nx.Defn.jit(&Model.collatz/1, compiler: Nx.Defn.Evaluator).(Nx.tensor(numbers))
          end)

        Oracle.assert_equivalent(got, expected)
      end
    end
  end

  describe "batched_run/2" do
    test "puts what several processes ask for into one batch" do
      test = self()

      counted = fn rows ->
        Nx.Defn.Kernel.io_call(Nx.multiply(rows, 2), &send(test, {:batch, Nx.axis_size(&1, 0)}))
      end

      # The batch is full when the last of them has asked.
      name = start(serving(counted), batch_size: 8, batch_timeout: 20_000)

      at_once(8, fn at ->
        got = Nx.Serving.batched_run(name, Batch.stack([Nx.tensor([at, -at])]))
        assert Nx.to_list(got) == [[2 * at, -2 * at]]
      end)

      assert_received {:batch, 8}
      refute_received {:batch, _}
    end

    test "divides what is larger than a batch" do
      name = start(model(), batch_size: 4)
      rows = rows(11, 3)
      assert_predicts(Nx.Serving.batched_run(name, Batch.concatenate([rows])), rows)
    end

    test "with a function for each key of a batch" do
      serving =
        Nx.Serving.new(
          fn
            :double, opts -> Nx.Defn.jit(&Nx.multiply(&1, 2), opts)
            :negate, opts -> Nx.Defn.jit(&Nx.negate/1, opts)
          end,
          options([])
        )

      name = start(serving, batch_size: 2, batch_keys: [:double, :negate])

      at_once(20, fn at ->
        {key, number} = if rem(at, 2) == 0, do: {:double, 2 * at}, else: {:negate, -at}
        batch = [Nx.tensor(at)] |> Batch.stack() |> Batch.key(key)
        assert Nx.to_list(Nx.Serving.batched_run(name, batch)) == [number]
      end)
    end

    test "goes on after a batch that fails" do
      picky = fn rows ->
        Nx.Defn.Kernel.io_call(rows, fn rows ->
          if Nx.to_number(Nx.any(Nx.less(rows, 0))) == 1, do: raise("negative")
        end)
      end

      name = start(serving(picky), batch_size: 1)
      ask = &Nx.Serving.batched_run(name, Batch.stack([Nx.tensor(&1)]))

      log =
        ExUnit.CaptureLog.capture_log(fn ->
          assert {{%RuntimeError{message: "negative"}, _}, _} = catch_exit(ask.(-1))
        end)

      assert log =~ "negative"
      assert Nx.to_list(ask.(1)) == [1]
    end
  end

  describe "streaming" do
    test "of batches in and out, with and without a process" do
      all = rows(10, 4)

      serving =
        model()
        |> Nx.Serving.client_preprocessing(fn rows ->
          {rows |> Nx.to_batched(2) |> Stream.map(&Batch.concatenate([&1])), :info}
        end)
        |> Nx.Serving.streaming()

      name = start(serving, batch_size: 2)

      for stream <- [Nx.Serving.run(serving, all), Nx.Serving.batched_run(name, all)] do
        batches = for {:batch, output, :server_info} <- stream, do: output
        assert length(batches) == 5
        assert_predicts(Nx.concatenate(batches), all)
      end
    end

    test "of hooks, each for those that asked" do
      serving = Nx.Serving.streaming(serving(&Model.watched/1), hooks: [:doubled, :summed])
      name = start(serving, batch_size: 6)

      check = fn stream, rows ->
        assert [{:doubled, doubled}, {:summed, summed}, {:batch, output, :server_info}] =
                 Enum.to_list(stream)

        assert Nx.to_list(doubled) == for(row <- rows, do: Enum.map(row, &(&1 * 2)))
        assert Nx.to_list(summed) == for(row <- rows, do: 2 * Enum.sum(row) + 1)
        assert Nx.to_list(output) == Nx.to_list(summed)
      end

      check.(Nx.Serving.run(serving, Batch.stack([Nx.tensor([1, 2])])), [[1, 2]])

      at_once(30, fn at ->
        rows = for i <- 1..(rem(at, 3) + 1), do: [at, i]
        batch = rows |> Enum.map(&Nx.tensor/1) |> Batch.stack()
        check.(Nx.Serving.batched_run(name, batch), rows)
      end)
    end
  end

  describe "partitions" do
    test "have a stream each" do
      device = Mlx.TestDevice.device()
      opts = [device: device, max_concurrency: 3, fuse: false]
      partitions = Mlx.Compiler.__partitions_options__(opts)
      streams = for partition <- partitions, do: partition[:stream]
      assert length(Enum.uniq_by(streams, & &1.ref)) == 3
      assert Enum.all?(streams, &(&1.device == device))
      assert Enum.all?(partitions, &(Keyword.delete(&1, :stream) == opts))
    end

    test "share one set of weights" do
      Mlx.OwnVm.assert_alive("""
      # 64 MB, of which a copy for a stream would be seen.
      weights = Mlx.eval(Nx.iota({4096, 4096}, type: :f32))
      held = Mlx.Memory.stats().active
      true = held >= 4096 * 4096 * 4

      build = fn opts ->
        dot = Nx.Defn.jit(&Nx.dot/2, opts)
        fn batch -> dot.(Nx.Batch.pad(batch, 4 - batch.size), weights) end
      end

      serving = Nx.Serving.new(build, compiler: Mlx.Compiler, max_concurrency: 4)
      opts = [serving: serving, name: S, partitions: true, batch_size: 4, batch_timeout: 1]
      {:ok, _} = Supervisor.start_link([{Nx.Serving, opts}], strategy: :one_for_one)
      Mlx.Memory.reset_peak()

      1..40
      |> Task.async_stream(fn at ->
        row = Nx.put_slice(Nx.broadcast(0.0, {4096}), [at], Nx.tensor([1.0]))
        got = Nx.Serving.batched_run(S, Nx.Batch.stack([row]))
        true = Nx.to_number(got[0][3]) == at * 4096.0 + 3
      end, max_concurrency: 16, timeout: :infinity)
      |> Stream.run()

      true = Mlx.Memory.stats().peak < held + 32_000_000
      """)
    end

    test "are a positive number" do
      for count <- [0, -1, 1.5, nil] do
        assert_raise ArgumentError, ~r/:max_concurrency is a positive number/, fn ->
          Mlx.Compiler.__partitions_options__(max_concurrency: count)
        end
      end
    end

    test "run beside each other" do
      test = self()

      # Neither goes on before both are here.
      meet = fn rows ->
        Nx.Defn.Kernel.io_call(Nx.add(rows, 1), fn _ ->
          send(test, {:here, self()})
          receive do: (:go_on -> :ok)
        end)
      end

      name = start(serving(meet, max_concurrency: 2), batch_size: 1, partitions: true)
      tasks = for at <- 1..2, do: Task.async(fn -> ask(name, at) end)
      pids = for _ <- 1..2, do: receive(do: ({:here, pid} -> pid))
      Enum.each(pids, &send(&1, :go_on))
      assert Task.await_many(tasks, :infinity) == [[2], [3]]
    end

    test "with dozens of processes" do
      # Nx gives the parts of a request that it divides in the order in which they are
      # done. Requests of two rows fit into a batch of four whole.
      requests = for seed <- 1..8, rows = rows(2, seed), do: {rows, expected(rows)}
      name = start(model(max_concurrency: 4), batch_size: 4, batch_timeout: 1, partitions: true)

      at_once(64, fn at ->
        for {rows, expected} <- Enum.slide(requests, rem(at, 8), 0) do
          got = Nx.Serving.batched_run(name, Batch.concatenate([rows]))
          Oracle.assert_equivalent(got, expected, ulps: 32)
        end
      end)
    end

    test "with functions of the host that use Nx in the meantime" do
      answer = fn rows, _opts -> rows |> Nx.multiply(3) |> Nx.backend_copy(Nx.BinaryBackend) end

      hosted = fn rows ->
        rows |> Nx.add(1) |> then(&Nx.runtime_call(&1, &1, answer)) |> Nx.subtract(1)
      end

      name = start(serving(hosted, max_concurrency: 3), batch_size: 4, partitions: true)

      at_once(48, fn at ->
        for i <- 1..5, do: assert(ask(name, 10 * at + i) == [3 * (10 * at + i + 1) - 1])
      end)
    end

    test "with processes that are killed while they wait" do
      name = start(model(max_concurrency: 2), batch_size: 4, batch_timeout: 1, partitions: true)
      rows = rows(2, 5)

      for at <- 1..60 do
        pid = spawn(fn -> Nx.Serving.batched_run(name, Batch.concatenate([rows])) end)
        if rem(at, 5) == 0, do: Process.sleep(1)
        Process.exit(pid, :kill)
      end

      assert_predicts(Nx.Serving.batched_run(name, Batch.concatenate([rows])), rows)
    end

    test "stop in the middle of work" do
      name = start(model(max_concurrency: 2), batch_size: 4, batch_timeout: 1, partitions: true)
      rows = rows(4, 6)

      pids =
        for _ <- 1..20 do
          spawn(fn ->
            for _ <- 1..100, do: Nx.Serving.batched_run(name, Batch.concatenate([rows]))
          end)
        end

      Process.sleep(20)
      monitors = for pid <- pids, do: Process.monitor(pid)

      ExUnit.CaptureLog.capture_log(fn ->
        :ok = stop_supervised(name)
        for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, _, _, _}, 10_000)
      end)

      assert_predicts(Nx.Serving.run(model(), Batch.concatenate([rows])), rows)
    end
  end

  defp ask(name, number) do
    Nx.to_list(Nx.Serving.batched_run(name, Batch.stack([Nx.tensor(number)])))
  end
end
