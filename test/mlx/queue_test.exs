defmodule Mlx.QueueTest do
  # What happens to callers while a stream is busy.
  use ExUnit.Case, async: true

  @moduletag timeout: 300_000

  defmodule Slow do
    import Nx.Defn

    defn count(times) do
      {i, _} = while {i = 0, times}, i < times, do: {i + 1, times}
      i
    end

    # Never waits for a condition, as it is known how often it goes round.
    defn climb(height) do
      while height, _ <- 1..2_000_000_000, do: height + 1
    end
  end

  # Far more than a test waits for.
  @times 2_000_000_000

  setup do
    stream = Mlx.Stream.new()
    jit = fn fun -> Nx.Defn.jit(fun, compiler: Mlx.Compiler, stream: stream) end
    increment = jit.(&Nx.add(&1, 1))
    functions = %{slow: jit.(&Slow.count/1), climb: jit.(&Slow.climb/1), increment: increment}
    Map.merge(functions, %{stream: stream, zero: mlx(0)})
  end

  test "callers of a full queue wait, schedulers don't", context do
    %{slow: slow, increment: increment, zero: zero} = context
    busy = slow.(@times)
    # More than there are schedulers, and together more than the queue holds.
    tasks = for _ <- 1..40, do: Task.async(fn -> add(increment, zero, 500) end)
    assert eventually(fn -> Enum.any?(tasks, &waits_for_room?(&1.pid)) end)

    # Another stream is served, and the VM goes on.
    assert Nx.to_number(Nx.add(zero, 1)) == 1
    ticks = Task.async(fn -> for _ <- 1..20, do: Process.sleep(1) end)
    assert Task.await(ticks, :infinity)
    assert Enum.all?(tasks, &Process.alive?(&1.pid))

    Nx.backend_deallocate(busy)
    assert Enum.map(tasks, &Task.await(&1, :infinity)) == List.duplicate(500, 40)
  end

  test "callers killed while they wait leave the others their turns", context do
    %{slow: slow, increment: increment, zero: zero} = context
    busy = slow.(@times)

    doomed = for _ <- 1..20, do: spawn(fn -> add(increment, zero, 5000) end)
    tasks = for _ <- 1..10, do: Task.async(fn -> add(increment, zero, 500) end)
    assert eventually(fn -> Enum.all?(doomed, &waits_for_room?/1) end)
    Enum.each(doomed, &kill/1)

    Nx.backend_deallocate(busy)
    assert Enum.map(tasks, &Task.await(&1, :infinity)) == List.duplicate(500, 10)
  end

  test "what a killed caller has queued is skipped, and a loop that has begun ends", context do
    %{slow: slow, increment: increment, zero: zero} = context
    kill(reader_of(fn -> for _ <- 1..20, do: slow.(@times) end))
    assert add(increment, zero, 1) == 1
  end

  test "a loop that counts ends, too", context do
    %{climb: climb, increment: increment, zero: zero} = context
    kill(reader_of(fn -> [climb.(zero)] end))
    assert add(increment, zero, 1) == 1
  end

  test "a loop ends although its reader held nothing any more", context do
    %{slow: slow, increment: increment, zero: zero} = context
    pid = reader_of(fn -> [slow.(@times)] end)
    :erlang.garbage_collect(pid)
    kill(pid)
    assert add(increment, zero, 1) == 1
  end

  test "a loop ends that was only to be begun", context do
    %{slow: slow, increment: increment, zero: zero} = context
    busy = slow.(@times)
    Mlx.async_eval(busy)
    Nx.backend_deallocate(busy)
    assert add(increment, zero, 1) == 1
  end

  test "a loop ends although its reader waits for another stream's work, too", context do
    %{slow: slow, increment: increment, zero: zero} = context
    other = Mlx.Stream.new()
    far = fn -> Mlx.Stream.with_stream(other, fn -> Nx.add(zero, 1) end) end

    for order <- [& &1, &Enum.reverse/1] do
      kill(reader_of(fn -> order.([far.(), slow.(@times)]) end, &Mlx.eval(List.to_tuple(&1))))
    end

    assert add(increment, zero, 1) == 1
    assert Nx.to_number(far.()) == 1
  end

  test "a loop ends that was profiled", context do
    %{stream: stream, increment: increment, zero: zero} = context
    options = [stream: stream, warm_up: 0]
    pid = reader_of(fn -> [@times] end, &Mlx.Profile.run(fn n -> Slow.count(n) end, &1, options))
    # It has waited for the compiler before.
    Process.sleep(300)
    kill(pid)
    assert add(increment, zero, 1) == 1
  end

  test "a loop goes on for whoever reads it, whatever comes behind it", context do
    %{slow: slow, increment: increment, zero: zero} = context
    times = 200_000
    wanted = slow.(times)
    Enum.reduce(1..100, zero, fn _, sum -> increment.(sum) end)
    last = increment.(wanted)
    Nx.backend_deallocate(wanted)
    assert Nx.to_number(last) == times + 1
  end

  test "an answer to a killed process is not another's", context do
    %{slow: slow, increment: increment, zero: zero} = context
    busy = slow.(@times)
    parent = self()
    name = :"#{inspect(self())} reads"

    start = fn fun ->
      pid =
        spawn(fn ->
          Process.register(self(), name)
          send(parent, :registered)
          fun.()
        end)

      assert_receive :registered, 60_000
      pid
    end

    reader = start.(fn -> Nx.to_number(increment.(busy)) end)
    assert eventually(fn -> waits?(reader) end)
    kill(reader)

    start.(fn -> receive(do: (message -> send(parent, {:strange, message}))) end)
    Nx.backend_deallocate(busy)
    assert add(increment, zero, 1) == 1
    refute_received {:strange, _}
  end

  # A process that waits for what it has queued.
  defp reader_of(queue, read \\ &Enum.each(&1, fn result -> Nx.to_number(result) end)) do
    parent = self()

    pid =
      spawn(fn ->
        results = queue.()
        send(parent, {:queued, self()})
        read.(results)
      end)

    assert_receive {:queued, ^pid}, 60_000
    assert eventually(fn -> waits?(pid) end)
    pid
  end

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, _, _, _}, 60_000
  end

  defp add(increment, zero, times) do
    1..times |> Enum.reduce(zero, fn _, sum -> increment.(sum) end) |> Nx.to_number()
  end

  defp mlx(number), do: Nx.tensor(number, type: :s32, backend: Mlx.Backend)

  defp waits_for_room?(pid) do
    at = Process.info(pid, :current_function)
    match?({:current_function, {Mlx.Dispatch, :await_room, 1}}, at) and waits?(pid)
  end

  defp waits?(pid), do: Process.info(pid, :status) == {:status, :waiting}

  defp eventually(fun, tries \\ 6000) do
    cond do
      fun.() -> true
      tries == 0 -> false
      true -> Process.sleep(10) && eventually(fun, tries - 1)
    end
  end
end
