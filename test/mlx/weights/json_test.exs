defmodule Mlx.Weights.JSONTest do
  use ExUnit.Case, async: true
  alias Mlx.Weights.JSON

  test "values are those of JSON" do
    text = ~s( {"a": [1, -2, 3.5, 1e2, true, null, "ü\\u00fc"], "b": {}} \n)

    assert JSON.decode(text, 2, 10) ==
             {:ok, %{"a" => [1, -2, 3.5, 100.0, true, nil, "üü"], "b" => %{}}}
  end

  test "depth, length and digits have bounds" do
    assert {:ok, [[1]]} = JSON.decode("[[1]]", 2, 10)
    assert {:error, "is nested"} = JSON.decode("[[1]]", 1, 10)
    assert {:error, "is nested"} = JSON.decode(~s({"a":{}}), 1, 10)
    assert {:error, "is nested"} = JSON.decode(String.duplicate("[", 1_000_000), 10, 10)
    assert {:ok, [1, 2]} = JSON.decode("[1,2]", 1, 2)
    assert {:error, "has a long array"} = JSON.decode("[1,2,3]", 1, 2)
    assert {:error, "has a long number"} = JSON.decode(String.duplicate("1", 1_000_000), 1, 2)
    assert {:error, _} = JSON.decode("0." <> String.duplicate("1", 1_000_000), 1, 2)
  end

  test "names come once, and values, too" do
    assert {:error, "has a name twice"} = JSON.decode(~s({"a":1,"b":2,"a":1}), 1, 2)
    assert {:error, "has more than one value"} = JSON.decode("{} {}", 1, 2)

    for text <- ["", "{", "[1,]", "nul", "{\"a\"}", <<34, 255, 34>>, "1e999"] do
      assert {:error, "is no JSON"} = JSON.decode(text, 9, 9)
    end
  end
end
