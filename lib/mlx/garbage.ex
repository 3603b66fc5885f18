defmodule Mlx.Garbage do
  @moduledoc false

  # Collects the garbage of processes when the engine asks for it, because only what the
  # collector of a process finds is let go of. To that collector a tensor is a few words.

  use GenServer
  alias Mlx.Native

  # After as long without a change of what is live, nobody computes.
  @quiet 5_000

  # A process that runs a NIF on a dirty scheduler collects when it comes back.
  @patience 1_000

  def start_link(opts) do
    GenServer.start_link(__MODULE__, opts, name: Keyword.get(opts, :name, __MODULE__))
  end

  @impl true
  def init(opts) do
    # What is asked for here makes room for those that compute.
    Process.flag(:priority, :high)
    Native.garbage_collector()
    state = %{quiet: Keyword.get(opts, :quiet, @quiet), live: 0}
    look_again(state)
    {:ok, state}
  end

  @impl true
  def handle_info({:collect, :callers}, state) do
    collect_callers()
    {:noreply, state}
  end

  def handle_info({:collect, round}, state) do
    # A process of its own waits for the answers.
    spawn(fn -> collect_all(round) end)
    {:noreply, state}
  end

  def handle_info(:look, state) do
    live = Native.memory_stats().active
    if live > 0 and live == state.live, do: collect_callers()
    look_again(state)
    {:noreply, %{state | live: live}}
  end

  # That a process has collected.
  def handle_info({:garbage_collect, _pid, _done}, state), do: {:noreply, state}

  defp look_again(state), do: Process.send_after(self(), :look, state.quiet)

  defp collect_callers, do: Enum.each(Native.garbage_callers(), &collect/1)

  defp collect(pid), do: :erlang.garbage_collect(pid, async: pid)

  defp collect_all(round) do
    Process.send_after(self(), :enough, @patience)
    Process.list() |> Enum.map(&collect/1) |> length() |> await()
    Native.garbage_collected(round)
  end

  defp await(0), do: :ok

  defp await(left) do
    receive do
      {:garbage_collect, _pid, _done} -> await(left - 1)
      :enough -> :ok
    end
  end
end
