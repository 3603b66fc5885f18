defmodule Mlx.MemoryTest do
  use ExUnit.Case, async: false

  doctest Mlx.Memory

  test "what is held goes up and down with tensors" do
    before = Mlx.Memory.stats().active
    bytes = 64 * 1024 * 1024
    tensor = Mlx.eval(Nx.iota({div(bytes, 4)}, type: :s32, backend: {Mlx.Backend, device: :cpu}))
    assert Mlx.Memory.stats().active - before >= bytes
    Nx.backend_deallocate(tensor)
    Mlx.synchronize(:cpu)
    assert Mlx.Memory.stats().active - before < bytes
    assert Mlx.Memory.stats().peak >= bytes
    Mlx.Memory.reset_peak()
    assert Mlx.Memory.stats().peak < before + bytes
  end
end
