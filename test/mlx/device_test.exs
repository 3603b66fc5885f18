defmodule Mlx.DeviceTest do
  # The default device is that of all processes.
  use ExUnit.Case, async: false
  alias Mlx.Device

  setup do
    default = Device.default()
    on_exit(fn -> Device.set_default(default) end)
  end

  doctest Mlx.Device

  test "available names each device once, the processor among them" do
    available = Device.available()
    assert :cpu in available
    assert available -- [:cpu, :gpu] == []
  end

  test "default is the GPU where there is one, if none was set" do
    :persistent_term.erase({Device, :default})
    assert Device.default() == if(:gpu in Device.available(), do: :gpu, else: :cpu)
  end

  test "set_default is where new tensors go" do
    for device <- Device.available() do
      assert Device.set_default(device) == :ok
      assert Device.default() == device
      assert Nx.tensor([1], backend: Mlx.Backend).data.device == device
      assert Nx.iota({2}, backend: Mlx.Backend).data.device == device
    end
  end

  test "set_default shows in other processes" do
    Device.set_default(:cpu)
    assert Task.await(Task.async(&Device.default/0), :infinity) == :cpu
  end

  test "set_default refuses what isn't there and keeps the default" do
    default = Device.default()

    for device <- [:tpu, "cpu", nil, 0] do
      error = assert_raise Mlx.Error, fn -> Device.set_default(device) end
      assert error.kind == :device
      assert error.message =~ "no device #{inspect(device)}; available: "
    end

    assert Device.default() == default
  end
end
