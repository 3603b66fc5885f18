defmodule Mlx.MemoryTest do
  use ExUnit.Case, async: false

  doctest Mlx.Memory

  @mb 1024 * 1024

  setup do
    stats = Mlx.Memory.stats()

    on_exit(fn ->
      Mlx.Memory.set_limit(stats.limit)
      Mlx.Memory.set_cache_limit(stats.cache_limit)
    end)
  end

  defp made(bytes) do
    Mlx.eval(Nx.iota({div(bytes, 4)}, type: :s32, backend: Mlx.Backend))
  end

  # MLX for CUDA keeps what is freed as long as the cache was below its limit before.
  defp above(bytes), do: if(Mlx.TestDevice.device() == :gpu, do: bytes, else: 0)

  defp free(tensor) do
    Nx.backend_deallocate(tensor)
    Mlx.synchronize()
  end

  test "what is held goes up and down with tensors" do
    before = Mlx.Memory.stats().active
    bytes = 64 * @mb
    tensor = made(bytes)
    # What others hold may have become less meanwhile.
    assert Mlx.Memory.stats().active - before > bytes - @mb
    free(tensor)
    assert Mlx.Memory.stats().active - before < bytes
    assert Mlx.Memory.stats().peak >= bytes
    Mlx.Memory.reset_peak()
    assert Mlx.Memory.stats().peak < before + bytes
  end

  test "what is freed is kept, up to the limit, until the cache is cleared" do
    Mlx.Memory.clear_cache()
    Mlx.Memory.set_cache_limit(100 * @mb)
    free(made(64 * @mb))
    assert Mlx.Memory.stats().cache in (64 * @mb)..(100 * @mb)
    free(made(80 * @mb))
    assert Mlx.Memory.stats().cache <= 100 * @mb + above(80 * @mb)
    Mlx.Memory.clear_cache()
    # Others may free little things meanwhile.
    assert Mlx.Memory.stats().cache < @mb
  end

  test "a smaller limit of the cache holds at once" do
    Mlx.Memory.set_cache_limit(100 * @mb)
    free(made(64 * @mb))
    Mlx.Memory.set_cache_limit(8 * @mb)
    assert %{cache: cache, cache_limit: limit} = Mlx.Memory.stats()
    assert cache <= 8 * @mb
    assert limit == 8 * @mb
    free(made(64 * @mb))
    assert Mlx.Memory.stats().cache <= 8 * @mb + above(64 * @mb)
  end

  test "kept memory of sizes that nobody wants any more makes way" do
    Mlx.Memory.clear_cache()
    Mlx.Memory.set_cache_limit(64 * @mb)
    for at <- 1..60, do: free(made(@mb + at * 4096))
    for _ <- 1..40, do: free(made(24 * @mb))
    free(made(24 * @mb))
    # It fits only if most of the small blocks have gone.
    assert Mlx.Memory.stats().cache >= 24 * @mb
  end

  test "kept memory counts against the limit only as long as nobody needs it" do
    Mlx.Memory.set_cache_limit(200 * @mb)
    free(made(150 * @mb))
    Mlx.Memory.set_limit(Mlx.Memory.stats().active + 180 * @mb)
    free(made(100 * @mb))
    stats = Mlx.Memory.stats()
    assert stats.active + stats.cache <= stats.limit
  end

  test "the limits are numbers" do
    for wrong <- [0, -1, 1.5, nil, "8 GB", 2 ** 80] do
      assert_raise ArgumentError, ~r/Mlx.Memory.set_limit\/1 expected a positive number/, fn ->
        Mlx.Memory.set_limit(wrong)
      end
    end

    for wrong <- [-1, 1.5, nil, :infinity, 2 ** 80] do
      assert_raise ArgumentError, ~r/Mlx.Memory.set_cache_limit\/1 expected a number/, fn ->
        Mlx.Memory.set_cache_limit(wrong)
      end
    end
  end

  test "the cache is bounded by default" do
    {output, 0} =
      Mlx.OwnVm.run("""
      stats = Mlx.Memory.stats()
      true = stats.cache_limit == div(stats.limit, 8)
      mb = 1024 * 1024
      Mlx.Memory.set_limit(512 * mb)
      64 = div(Mlx.Memory.stats().cache_limit, mb)
      for size <- [40, 60, 90], do: Mlx.eval(Nx.iota({div(size * mb, 4)}, type: :s32))
      for pid <- Process.list(), do: :erlang.garbage_collect(pid)
      Mlx.synchronize()
      true = Mlx.Memory.stats().cache <= 64 * mb + #{above(90 * @mb)}
      IO.puts("held")
      """)

    assert output =~ "held"
  end

  @tag :host_memory
  test "what the system sees falls when garbage is collected and the cache cleared" do
    Mlx.OwnVm.assert_alive("""
    mb = 1024 * 1024
    resident = fn ->
      {printed, 0} = System.cmd("ps", ~w(-o rss= -p \#{System.pid()}))
      div(String.to_integer(String.trim(printed)), 1024)
    end
    before = resident.()
    # Of sizes that the C library treats in different ways.
    sizes = [100, 5_000, 60_000, 500_000, 20 * mb, 150 * mb]
    # That of a GPU is not the system's.
    backend = {Mlx.Backend, device: :cpu}
    make = fn size -> Mlx.eval(Nx.iota({size}, type: :u8, backend: backend)) end
    parent = self()

    pid = spawn(fn ->
      (fn -> send(parent, {:made, length(for size <- sizes, _ <- 1..3, do: make.(size))}) end).()
      receive do: (:collect -> :erlang.garbage_collect())
      send(parent, :collected)
      Process.sleep(:infinity)
    end)

    receive do: ({:made, 18} -> :ok)
    true = resident.() - before > 450
    send(pid, :collect)
    receive do: (:collected -> :ok)
    Mlx.Memory.clear_cache()
    0 = Mlx.Memory.stats().active
    true = resident.() - before < 60
    """)
  end
end
