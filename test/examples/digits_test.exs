defmodule Mlx.Examples.DigitsTest do
  use ExUnit.Case, async: false
  alias Mlx.Example

  setup do
    Example.on_cpu()
  end

  test "the demo learns to read digits, the same way every time, compiled or not" do
    first = accuracies()
    assert %{"eager" => accuracy, "compiled" => accuracy} = first
    assert accuracy >= 96.0
    assert accuracies() == first
  end

  defp accuracies do
    output = Example.run("digits")
    Example.forget([Digits])
    assert output =~ ~r/device: cpu/

    for [_, name, accuracy] <- Regex.scan(~r/^(\w+) +[0-9.]+ +([0-9.]+) %$/m, output),
        into: %{},
        do: {name, String.to_float(accuracy)}
  end
end
