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

  defp stop, do: capture_log(fn -> :ok = Application.stop(:mlx) end)
end
