defmodule Mlx.ApplicationTest do
  # Starts the application again with other settings.
  use ExUnit.Case, async: false
  import ExUnit.CaptureLog

  setup do
    on_exit(fn ->
      Application.delete_env(:mlx, :dispatch)
      Application.ensure_started(:mlx)
    end)
  end

  test "refuses a dispatch that it doesn't know" do
    Application.put_env(:mlx, :dispatch, :lazy)
    stop()
    capture_log(fn -> send(self(), Application.start(:mlx)) end)
    assert_received {:error, reason}
    assert inspect(reason) =~ "dispatch: :lazy is none of [:pipelined, :sync]"
  end

  test "tensors outlive its restart" do
    tensor = Nx.tensor([1, 2], backend: {Mlx.Backend, device: :cpu})
    stop()
    :ok = Application.start(:mlx)
    assert Nx.to_list(Nx.add(tensor, 1)) == [2, 3]
  end

  test "compiled functions are compiled anew after its restart" do
    handler = make_ref()
    :telemetry.attach(handler, [:mlx, :compile, :stop], &__MODULE__.report/4, self())
    on_exit(fn -> :telemetry.detach(handler) end)

    tensor = Nx.tensor([1, 2], backend: {Mlx.Backend, device: :cpu})
    double = Nx.Defn.jit(&__MODULE__.double/1, compiler: Mlx.Compiler)
    before = double.(tensor)
    assert_received :compiled
    double.(tensor)
    refute_received :compiled

    stop()
    :ok = Application.start(:mlx)
    assert Nx.to_list(double.(before)) == [4, 8]
    assert_received :compiled
  end

  test "streams and work in flight outlive its restart" do
    stream = Mlx.Stream.new(:cpu)
    double = Nx.Defn.jit(&__MODULE__.double/1, compiler: Mlx.Compiler, stream: stream)
    one = Nx.tensor(1.0, backend: {Mlx.Backend, device: :cpu})
    flying = Enum.reduce(1..100, one, fn _, x -> double.(x) end)
    stop()
    :ok = Application.start(:mlx)
    assert Nx.to_number(flying) == 2.0 ** 100
    assert Nx.to_number(double.(one)) == 2.0
  end

  def double(x), do: Nx.multiply(x, 2)

  def report(_event, _measurements, _metadata, test), do: send(test, :compiled)

  defp stop, do: capture_log(fn -> :ok = Application.stop(:mlx) end)
end
