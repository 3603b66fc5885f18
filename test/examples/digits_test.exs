defmodule Mlx.Examples.DigitsTest do
  use ExUnit.Case, async: false
  import ExUnit.CaptureIO

  @script "examples/digits.exs"

  # On a GPU the order of additions is not the same every time.
  setup do
    default = Mlx.Device.default()
    Mlx.Device.set_default(:cpu)
    backend = Nx.default_backend()

    on_exit(fn ->
      Mlx.Device.set_default(default)
      Nx.default_backend(backend)
    end)
  end

  test "the demo learns to read digits, the same way every time" do
    assert accuracy() >= 96.0
    assert accuracy() == accuracy()
  end

  defp accuracy do
    output = capture_io(fn -> Code.eval_file(@script) end)
    :code.purge(Digits)
    :code.delete(Digits)
    assert output =~ ~r/device +cpu/
    assert output =~ ~r/seconds +[0-9.]+/
    [_, accuracy] = Regex.run(~r/accuracy +([0-9.]+) %/, output)
    String.to_float(accuracy)
  end
end
