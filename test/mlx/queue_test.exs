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
  end

  @times 100_000

  setup do
    stream = Mlx.Stream.new()
    jit = fn fun -> Nx.Defn.jit(fun, compiler: Mlx.Compiler, stream: stream) end
    %{slow: jit.(&Slow.count/1), increment: jit.(&Nx.add(&1, 1)), zero: mlx(0)}
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
    assert Enum.any?(tasks, &Process.alive?(&1.pid))

    assert Enum.map(tasks, &Task.await(&1, :infinity)) == List.duplicate(500, 40)
    assert Nx.to_number(busy) == @times
  end

  test "callers killed while they wait leave the others their turns", context do
    %{slow: slow, increment: increment, zero: zero} = context
    busy = slow.(@times)

    doomed = for _ <- 1..20, do: spawn(fn -> add(increment, zero, 5000) end)
    tasks = for _ <- 1..10, do: Task.async(fn -> add(increment, zero, 500) end)
    assert eventually(fn -> Enum.all?(doomed, &waits_for_room?/1) end)
    for pid <- doomed, do: Process.exit(pid, :kill)

    assert Enum.map(tasks, &Task.await(&1, :infinity)) == List.duplicate(500, 10)
    assert Nx.to_number(busy) == @times
  end

  test "what a killed caller has queued is skipped", context do
    %{slow: slow, increment: increment, zero: zero} = context
    busy = slow.(@times)
    parent = self()

    # Far longer than the test may take.
    pid =
      spawn(fn ->
        results = for _ <- 1..20, do: slow.(20_000_000)
        send(parent, :queued)
        Enum.map(results, &Nx.to_number/1)
      end)

    assert_receive :queued
    assert eventually(fn -> waits?(pid) end)
    Process.exit(pid, :kill)
    assert Nx.to_number(busy) == @times
    assert add(increment, zero, 1) == 1
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

      assert_receive :registered
      pid
    end

    reader = start.(fn -> Nx.to_number(increment.(busy)) end)
    assert eventually(fn -> waits?(reader) end)
    monitor = Process.monitor(reader)
    Process.exit(reader, :kill)
    assert_receive {:DOWN, ^monitor, _, _, _}

    start.(fn -> receive(do: (message -> send(parent, {:strange, message}))) end)
    assert Nx.to_number(busy) == @times
    assert add(increment, zero, 1) == 1
    refute_received {:strange, _}
  end

  defp add(increment, zero, times) do
    1..times |> Enum.reduce(zero, fn _, sum -> increment.(sum) end) |> Nx.to_number()
  end

  defp mlx(number), do: Nx.tensor(number, type: :s32, backend: Mlx.Backend)

  defp waits_for_room?(pid) do
    match?({:current_function, {Mlx.Dispatch, :await_room, 1}}, info(pid, :current_function))
  end

  defp waits?(pid), do: info(pid, :status) == {:status, :waiting}

  defp info(pid, key), do: Process.info(pid, key)

  defp eventually(fun, tries \\ 6000) do
    cond do
      fun.() -> true
      tries == 0 -> false
      true -> Process.sleep(10) && eventually(fun, tries - 1)
    end
  end
end
