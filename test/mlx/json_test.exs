defmodule Mlx.JsonTest do
  use ExUnit.Case, async: true
  use ExUnitProperties

  property "what is encoded is decoded by others to the same" do
    leaf =
      one_of([integer(), float(), boolean(), constant(nil), string(:printable), string(0..300)])

    term = tree(leaf, &one_of([list_of(&1), map_of(string(:printable), &1)]))

    check all(term <- term) do
      assert term |> Mlx.Json.encode() |> IO.iodata_to_binary() |> decode() == term
    end
  end

  test "atoms are strings, as values and as keys" do
    assert IO.iodata_to_binary(Mlx.Json.encode(%{a: [:b, nil, true, 1.5]})) ==
             ~s({"a":["b",null,true,1.5]})
  end

  defp decode(json), do: Jason.decode!(json)
end
