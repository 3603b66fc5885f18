defmodule Mlx.ErrorTest do
  use ExUnit.Case, async: true
  doctest Mlx.Error

  test "carries what went wrong and where" do
    native = %{
      kind: :shape,
      op: "add",
      operands: [{"f32", [2, 3]}, {"s64", []}],
      message: "they don't broadcast"
    }

    assert Mlx.Error.from_native(native) == %Mlx.Error{
             kind: :shape,
             op: "add",
             operands: [{"f32", {2, 3}}, {"s64", {}}],
             message: "they don't broadcast"
           }
  end

  test "is an exception with a message" do
    error =
      assert_raise Mlx.Error, "no room", fn ->
        raise Mlx.Error, kind: :memory, message: "no room"
      end

    assert %{kind: :memory, op: nil, operands: []} = error
    assert Exception.message(error) == "no room"
  end
end
