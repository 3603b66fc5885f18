defmodule Mlx.Compiler.Cache do
  @moduledoc false

  # Executables by function, signature of the arguments and options. The table is read by
  # everyone; who finds nothing asks this process, which lets one compile while others wait.

  use GenServer
  alias Mlx.Compiler.Closure

  @table __MODULE__
  @limit 1024

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc """
  What is kept for `key`, or what `compile` makes, which then is; and whether it was a
  `:hit` or a `:miss`.
  """
  def fetch(key, compile) do
    case lookup(key) do
      {:ok, value} ->
        {:hit, value}

      :error ->
        case GenServer.call(__MODULE__, {:claim, key}, :infinity) do
          :compile -> compile(key, compile)
          :compiled -> fetch(key, compile)
        end
    end
  end

  defp lookup(key) do
    case :ets.lookup(@table, key) do
      [{_key, value, used}] ->
        now = now()
        # To the millisecond is enough to know what has long been unused.
        if now != used, do: :ets.update_element(@table, key, {3, now})
        {:ok, value}

      [] ->
        :error
    end
  end

  defp compile(key, compile) do
    value = compile.()
    :ets.insert(@table, {key, value, now()})
    {:miss, value}
  after
    GenServer.cast(__MODULE__, {:release, key, self()})
  end

  @doc """
  How many executables are kept, and how many may be.
  """
  def info, do: %{entries: :ets.info(@table, :size), limit: @limit}

  def clear do
    :ets.delete_all_objects(@table)
    Closure.clear()
    :ok
  end

  defp now, do: System.monotonic_time(:millisecond)

  ## The process

  @impl true
  def init(nil) do
    :ets.new(@table, [:named_table, :public, read_concurrency: true])
    Closure.start()
    {:ok, %{}}
  end

  # Claims by key: who compiles, its monitor, and who waits.
  @impl true
  def handle_call({:claim, key}, {pid, _} = from, claims) do
    case claims do
      # A function whose compilation runs itself must not wait for itself.
      %{^key => {^pid, _monitor, _waiting}} ->
        {:reply, :compile, claims}

      %{^key => {other, monitor, waiting}} ->
        {:noreply, Map.put(claims, key, {other, monitor, [from | waiting]})}

      %{} ->
        if :ets.member(@table, key),
          do: {:reply, :compiled, claims},
          else: {:reply, :compile, Map.put(claims, key, {pid, Process.monitor(pid), []})}
    end
  end

  @impl true
  def handle_cast({:release, key, pid}, claims) do
    evict()

    case claims do
      %{^key => {^pid, monitor, waiting}} ->
        Process.demonitor(monitor, [:flush])
        {:noreply, release(key, waiting, claims)}

      # It was claimed from inside itself.
      %{} ->
        {:noreply, claims}
    end
  end

  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, claims) do
    case Enum.find(claims, &match?({_key, {_pid, ^monitor, _waiting}}, &1)) do
      {key, {_pid, _monitor, waiting}} -> {:noreply, release(key, waiting, claims)}
      nil -> {:noreply, claims}
    end
  end

  # They look again, and one of them claims the key if there is still nothing.
  defp release(key, waiting, claims) do
    Enum.each(waiting, &GenServer.reply(&1, :compiled))
    Map.delete(claims, key)
  end

  # A tenth goes at once, so that the table is seldom gone through.
  defp evict do
    if :ets.info(@table, :size) > @limit do
      used = :ets.select(@table, [{{:"$1", :_, :"$2"}, [], [{{:"$2", :"$1"}}]}])

      used
      |> Enum.sort_by(&elem(&1, 0))
      |> Enum.take(length(used) - @limit + div(@limit, 10))
      |> Enum.each(fn {_used, key} -> :ets.delete(@table, key) end)
    end
  end
end
