defmodule Mlx.Examples.ServingTest do
  use ExUnit.Case, async: false
  alias Mlx.Example

  @moduletag :bumblebee
  @moduletag :capture_log

  setup do
    Example.restore_backend()
  end

  test "the example runs with a random model" do
    assert [_took, {"one", [_, _]}, {"two", [_, _]}] = run(["one", "two"])
  end

  @tag :minilm
  test "and finds what was meant with a real one" do
    folder = System.fetch_env!("MLX_MINILM")
    assert [_took, train, advice, money] = run([folder])
    assert {"a delayed train", [{cosine, "3 May. Bistritz." <> _} | _]} = train
    assert cosine > 0.3

    assert {"advice from a parent", [{_, "In my younger and more vulnerable years" <> _} | _]} =
             advice

    assert {"marrying for money", [{_, "It is a truth universally" <> _} | _]} = money
  end

  # The parts of what it prints: how long it took, and each question with what is closest.
  defp run(args) do
    [took | questions] = args |> output() |> String.trim() |> String.split("\n\n")
    assert took =~ ~r/^20 sentences on the #{Mlx.TestDevice.device()} in \d+ ms$/
    [took | Enum.map(questions, &question/1)]
  end

  defp question(part) do
    [question | found] = String.split(part, "\n")

    {question,
     for line <- found do
       ["", cosine, text] = String.split(line, "  ", parts: 3, trim: false)
       {String.to_float(cosine), text}
     end}
  end

  defp output(args) do
    Example.run("serving", args)
  after
    Example.forget([Search])
  end
end
