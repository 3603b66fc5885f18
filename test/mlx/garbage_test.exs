defmodule Mlx.GarbageTest do
  # Each in a VM of its own, where nobody else makes or collects garbage.
  use ExUnit.Case, async: true
  import Mlx.OwnVm

  @start """
  mb = 1024 * 1024
  big = fn size -> Nx.iota({div(size * 1024 * 1024, 4)}, type: :f32, backend: Mlx.Backend) end
  active = fn -> div(Mlx.Memory.stats().active, mb) end
  soon = fn fun ->
    Enum.find(1..300, fn _ -> fun.() || Process.sleep(100) == :never end) || raise("not in time")
  end
  defmodule Holder do
    # Runs the function, says so, and idles with what it has left behind.
    def start(fun) do
      parent = self()
      pid = spawn(fn -> fun.(); send(parent, :made); Process.sleep(:infinity) end)
      receive do: (:made -> pid)
    end
  end
  defmodule Loop do
    def add(x, times), do: Enum.reduce(1..times, x, fn _, x -> Nx.add(x, 1) end)
  end
  """

  defp assert_runs(code), do: assert_alive(@start <> code)

  test "a chain of operations whose results are garbage fits a limit of a few of them" do
    assert_runs("""
    Mlx.Memory.set_limit(256 * mb)
    60.0 = Nx.to_number(Loop.add(big.(48), 60)[0])
    true = Mlx.Memory.stats().peak <= 256 * mb
    """)
  end

  test "so does a chain of calls of a compiled function, and one of binaries" do
    assert_runs("""
    Mlx.Memory.set_limit(256 * mb)
    add = Nx.Defn.jit(&Nx.add(&1, 1), compiler: Mlx.Compiler)
    60.0 = Nx.to_number(Enum.reduce(1..60, big.(48), fn _, x -> add.(x) end)[0])
    bytes = :binary.copy(<<1>>, 48 * mb)
    for _ <- 1..30, do: 1 = Nx.to_number(Nx.from_binary(bytes, :u8)[7])
    true = Mlx.Memory.stats().peak <= 256 * mb
    """)
  end

  test "what another process holds as garbage makes room" do
    assert_runs("""
    Mlx.Memory.set_limit(256 * mb)
    pid = Holder.start(fn -> for _ <- 1..4, do: Mlx.eval(big.(48)) end)
    for _ <- 1..4, do: Mlx.eval(big.(48))
    true = Process.alive?(pid)
    """)
  end

  test "what is no garbage is refused, and the next tensor that fits is made" do
    assert_runs("""
    Mlx.Memory.set_limit(256 * mb)
    pid = Holder.start(fn -> Process.put(:held, for(_ <- 1..4, do: Mlx.eval(big.(48)))) end)
    for _ <- 1..3, do: :memory = refused.(fn -> Mlx.eval(big.(100)) end)
    48 = div(active.(), 4)
    {:dictionary, entries} = Process.info(pid, :dictionary)
    [3.0, 3.0, 3.0, 3.0] = Enum.map(entries[:held], &Nx.to_number(&1[3]))
    spawn(fn -> for {:held, held} <- entries, do: Enum.each(held, &Nx.backend_deallocate/1) end)
    Mlx.eval(big.(100))
    """)
  end

  test "what is queued at once and held stays below the limit, too" do
    assert_runs("""
    defmodule Busy do
      import Nx.Defn
      defn forever(x), do: (while x, x >= 0, do: x * 1)
    end
    Mlx.Memory.set_limit(256 * mb)
    x = Mlx.eval(big.(20))
    busy = Nx.Defn.jit(&Busy.forever/1, compiler: Mlx.Compiler).(0)
    sums = Enum.scan(1..20, x, fn _, x -> Nx.add(x, 1) end)
    Nx.backend_deallocate(busy)
    :memory = refused.(fn -> Mlx.eval(List.to_tuple(sums)) end)
    1.0 = Nx.to_number(hd(sums)[0])
    true = Mlx.Memory.stats().peak <= 256 * mb
    """)
  end

  test "what is passed on takes no memory beside what is queued" do
    assert_runs("""
    Mlx.Memory.set_limit(256 * mb)
    pass = Nx.Defn.jit(fn s, x -> {Nx.add(s, 1), x} end, compiler: Mlx.Compiler)
    start = {Nx.tensor(0), Mlx.eval(big.(160))}
    {s, x} = Enum.reduce(1..50, start, fn _, {s, x} -> pass.(Nx.add(s, 1), x) end)
    100 = Nx.to_number(s)
    5.0 = Nx.to_number(x[5])
    """)
  end

  test "memory that is donated counts once beside what is queued" do
    assert_runs("""
    Mlx.Memory.set_limit(256 * mb)
    scale = fn parts, s -> {Map.new(parts, fn {at, x} -> {at, Nx.multiply(x, s)} end), Nx.add(s, 1)} end
    scale = Nx.Defn.jit(scale, compiler: Mlx.Compiler)
    parts = for at <- 1..10, into: %{}, do: {at, Mlx.eval(big.(16))}
    one = Mlx.eval(Nx.tensor(1.0))
    parts = Enum.reduce(1..20, parts, fn _, parts ->
      {parts, two} = scale.(Nx.donatable(parts), Nx.add(one, 0))
      2.0 = Nx.to_number(two)
      parts
    end)
    5.0 = Nx.to_number(parts[10][5])
    true = Mlx.Memory.stats().peak <= 256 * mb
    """)
  end

  test "the garbage of a process that idles goes when nobody computes" do
    assert_runs("""
    pid = Holder.start(fn -> Mlx.eval(big.(20)) end)
    soon.(fn -> active.() == 0 end)
    true = Process.alive?(pid)
    """)
  end

  test "the garbage of others goes when live bytes grow" do
    assert_runs("""
    Mlx.Memory.set_limit(8 * 1024 * mb)
    pid = Holder.start(fn -> Mlx.eval(big.(20)) end)
    # Nothing else asks for a collection: after so long it would be that of idling.
    began = System.monotonic_time(:millisecond)
    held = for _ <- 1..8, do: Mlx.eval(big.(20))
    soon.(fn -> active.() <= 160 or System.monotonic_time(:millisecond) - began > 4000 end)
    true = active.() <= 160 and length(held) == 8 and Process.alive?(pid)
    """)
  end

  test "a process that ends leaves nothing, nor does one that was killed" do
    assert_runs("""
    for reason <- [:normal, :kill] do
      pid = Holder.start(fn -> Process.put(:x, Mlx.eval(big.(20))) end)
      20 = active.()
      if reason == :kill, do: Process.exit(pid, :kill), else: Process.exit(pid, :shutdown)
      soon.(fn -> active.() == 0 end)
    end
    """)
  end

  test "the collector is there again after it was killed" do
    assert_runs("""
    Mlx.Memory.set_limit(256 * mb)
    old = Process.whereis(Mlx.Garbage)
    Process.exit(old, :kill)
    soon.(fn -> Process.whereis(Mlx.Garbage) not in [nil, old] end)
    pid = Holder.start(fn -> for _ <- 1..4, do: Mlx.eval(big.(48)) end)
    for _ <- 1..4, do: Mlx.eval(big.(48))
    true = Process.alive?(pid)
    """)
  end

  # The results of a forward pass are garbage when it ends, 200 MB of it.
  for way <- [:eager, :compiled] do
    test "four #{way} batches take hardly more than one" do
      assert_runs("""
      defmodule Forward do
        def run(x, weights), do: Enum.reduce(1..12, x, fn _, x -> layer(x, weights) end)

        defp layer(x, {up, down}) do
          h = x |> Nx.dot(up) |> Nx.multiply(0.01)
          Nx.add(x, h |> Nx.multiply(Nx.sigmoid(h)) |> Nx.dot(down))
        end

        def peak(batches, forward, weights) do
          for pid <- Process.list(), do: :erlang.garbage_collect(pid)
          Mlx.synchronize()
          Mlx.Memory.reset_peak()

          Task.await(Task.async(fn ->
            for at <- 1..batches do
              x = Nx.broadcast(Nx.tensor(at / 10, backend: Mlx.Backend), {1024, 128})
              x |> Nx.add(0.0) |> forward.(weights) |> Nx.to_binary() |> byte_size()
            end
          end), :infinity)

          Mlx.Memory.stats().peak
        end
      end

      Mlx.Memory.set_limit(8 * 1024 * mb)
      weights = Mlx.eval({Nx.iota({128, 1024}, type: :f32) |> Nx.divide(1.0e6), Nx.iota({1024, 128}, type: :f32) |> Nx.divide(1.0e6)})
      compiled = Nx.Defn.jit(&Forward.run/2, compiler: Mlx.Compiler)
      forward = if :#{unquote(way)} == :eager, do: &Forward.run/2, else: compiled
      Forward.peak(1, forward, weights)
      one = Forward.peak(1, forward, weights)
      four = Forward.peak(4, forward, weights)
      IO.inspect({one, four, four / one})
      true = four < 1.6 * one
      """)
    end
  end

  test "without the application memory is refused at once" do
    assert_runs("""
    Mlx.Memory.set_limit(256 * mb)
    Logger.configure(level: :none)
    :ok = Application.stop(:mlx)
    _held = for _ <- 1..4, do: Mlx.eval(big.(48))
    :memory = refused.(fn -> Mlx.eval(big.(100)) end)
    """)
  end
end
