"""Questions and answers of the common intents.

`{ref}` is a reference to one order (by id or by item); other fields are listed in `fields.py`.
Held-out questions are never seen in training; answers are shared by both splits.
"""

from __future__ import annotations

from typing import Final

from weir.desk.phrasebook import Phrases

COMMON: Final[dict[str, Phrases]] = {
    "order_status": Phrases(
        train=(
            "Where is {ref}?",
            "What is the status of {ref}?",
            "Can you check {ref} for me?",
            "What is going on with {ref}?",
            "Any news about {ref}?",
            "I want to know the status of {ref}.",
            "Has {ref} been shipped yet?",
            "Is {ref} still being processed?",
            "How far is {ref}?",
            "Please tell me the state of {ref}.",
            "Could you look up {ref}?",
            "What happened to {ref}?",
        ),
        heldout=(
            "Can you tell me where {ref} is?",
            "Please check the status of {ref}.",
            "What is the state of {ref} now?",
            "Do you have any news on {ref}?",
        ),
        follow_ups=("What is its status?", "And where is it?", "Has it been shipped?"),
        heldout_follow_ups=("Where is it now?",),
        answers=(
            "Order {id}, the {item}, is {status}.",
            "Your order {id}, the {item}, is {status}.",
        ),
    ),
    "order_eta": Phrases(
        train=(
            "When will {ref} arrive?",
            "When do I get {ref}?",
            "What is the delivery date of {ref}?",
            "When is {ref} due?",
            "On what day does {ref} arrive?",
            "How long until {ref} is here?",
            "When can I expect {ref}?",
            "What day will {ref} be delivered?",
            "Tell me the arrival date of {ref}.",
            "I need the delivery date for {ref}.",
            "When should {ref} reach me?",
        ),
        heldout=(
            "What day does {ref} arrive?",
            "When will {ref} be delivered?",
            "Can you tell me when {ref} is due?",
            "When should I expect {ref}?",
        ),
        follow_ups=("When will it arrive?", "And when is it due?", "When do I get it?"),
        heldout_follow_ups=("When can I expect it?",),
        answers=(
            "Order {id}, the {item}, is due on {arrives}.",
            "Your order {id}, the {item}, is due on {arrives}.",
        ),
        answers_delivered=(
            "Order {id}, the {item}, arrived on {arrives}.",
            "Your order {id}, the {item}, arrived on {arrives}.",
        ),
    ),
    "order_item": Phrases(
        train=(
            "What is in {ref}?",
            "What did I buy with {ref}?",
            "Which item is in {ref}?",
            "What does {ref} contain?",
            "Which product is {ref}?",
            "Tell me what {ref} contains.",
            "I forgot what I ordered in {ref}.",
            "What was {ref} again?",
            "Can you tell me what is in {ref}?",
        ),
        heldout=(
            "Which item did I buy with {ref}?",
            "What item does {ref} contain?",
            "I forgot what is in {ref}.",
        ),
        follow_ups=("What is in it?", "And what did I buy there?", "Which item is it?"),
        heldout_follow_ups=("What does it contain?",),
        answers=(
            "Order {id} is the {item}.",
            "Your order {id} is the {item}.",
        ),
        ref_by_item=False,
    ),
    "order_price": Phrases(
        train=(
            "How much did {ref} cost?",
            "What is the price of {ref}?",
            "What did I pay for {ref}?",
            "How expensive was {ref}?",
            "Tell me the price of {ref}.",
            "How much money did I spend on {ref}?",
            "What was the amount for {ref}?",
            "I need the price of {ref}.",
        ),
        heldout=(
            "How much did I pay for {ref}?",
            "What did {ref} cost?",
            "Can you tell me the price of {ref}?",
        ),
        follow_ups=("How much did it cost?", "And what is the price?", "What did I pay for it?"),
        heldout_follow_ups=("What did it cost?",),
        answers=(
            "Order {id}, the {item}, costs {price}.",
            "Your order {id}, the {item}, costs {price}.",
        ),
    ),
    "order_date": Phrases(
        train=(
            "When did I order {ref}?",
            "On what day was {ref} ordered?",
            "What is the order date of {ref}?",
            "When did I place {ref}?",
            "When was {ref} placed?",
            "Tell me the day I ordered {ref}.",
            "How long ago did I place {ref}?",
            "I need the order date for {ref}.",
        ),
        heldout=(
            "When was {ref} ordered?",
            "On what day did I place {ref}?",
            "Can you tell me the order date of {ref}?",
        ),
        follow_ups=("When did I order it?", "And when was it placed?", "What was the order date?"),
        heldout_follow_ups=("When was it ordered?",),
        answers=(
            "Order {id}, the {item}, was ordered on {ordered}.",
            "Your order {id}, the {item}, was ordered on {ordered}.",
        ),
    ),
    "other_order": Phrases(
        train=(
            "And the other one?",
            "And my other order?",
            "What about the other one?",
            "The other order, please?",
            "Same question for the other one.",
        ),
        heldout=("What about my other order?", "And what about the other order?"),
        answers=(),
    ),
    "order_missing": Phrases(
        train=(),
        heldout=(),
        answers=(
            "I cannot find {missing} on your account.",
            "Sorry, I cannot find {missing} on your account.",
        ),
    ),
    "return_window": Phrases(
        train=(
            "How long can I return an item?",
            "What is the return window?",
            "How many days do I have to send something back?",
            "What is your return policy?",
            "Until when can I return things?",
            "Can I send an item back?",
            "How long is the return period?",
            "I want to return something, how much time is there?",
            "Tell me about returns.",
            "Do you take items back?",
        ),
        heldout=(
            "How many days do I have to return an item?",
            "How long can I send things back?",
            "What is your return window?",
            "Until when do you take items back?",
        ),
        answers=(
            "Items can be returned within {return_days} days of delivery.",
            "You can return items within {return_days} days of delivery.",
        ),
    ),
    "shipping": Phrases(
        train=(
            "How much is shipping?",
            "What does shipping cost?",
            "Is shipping free?",
            "What is the shipping fee?",
            "When is shipping free?",
            "How much do you charge for delivery?",
            "What are the delivery costs?",
            "From what amount is delivery free?",
            "Tell me about shipping costs.",
            "Do I have to pay for shipping?",
        ),
        heldout=(
            "How much does shipping cost?",
            "What is the delivery fee?",
            "From what amount is shipping free?",
            "Do I have to pay for delivery?",
        ),
        answers=(
            "Shipping costs {fee} and is free from {free_from}.",
            "Our shipping costs {fee} and is free from {free_from}.",
        ),
    ),
    "loyalty": Phrases(
        train=(
            "How many points do I have?",
            "What is my tier?",
            "Which loyalty tier am I in?",
            "What is my points balance?",
            "Tell me my tier and points.",
            "What member level am I?",
            "How many loyalty points are on my account?",
            "Am I a gold member?",
            "How are my points doing?",
        ),
        heldout=(
            "What tier am I in?",
            "How many loyalty points do I have?",
            "What are my tier and points?",
        ),
        answers=("You are a {tier} member with {points} points.",),
    ),
    "opening_hours": Phrases(
        train=(
            "When are you open?",
            "What are your opening hours?",
            "When do you close?",
            "At what time do you open?",
            "On what days are you open?",
            "Are you open on Saturday?",
            "Are you open on Sunday?",
            "Until when are you open today?",
            "What time can I visit the store?",
            "Tell me the opening hours.",
        ),
        heldout=(
            "What are the opening hours of the store?",
            "At what time do you close?",
            "What days are you open?",
            "When can I visit the store?",
        ),
        answers=(
            "We are open from {opens} to {closes}, Monday to {last_weekday}.",
            "Our store is open from {opens} to {closes}, Monday to {last_weekday}.",
        ),
    ),
    "contact": Phrases(
        train=(
            "How can I reach you?",
            "What is your phone number?",
            "Can I call someone?",
            "How do I contact support?",
            "What is your email address?",
            "I want to talk to a person.",
            "Where can I write to?",
            "Give me your number please.",
            "How do I get in touch?",
        ),
        heldout=(
            "What number can I call?",
            "How can I contact you?",
            "How do I reach support?",
            "Can I talk to someone?",
        ),
        answers=(
            "Call us at {phone} or write to {email}.",
            "You can call us at {phone} or write to {email}.",
        ),
    ),
    "warranty": Phrases(
        train=(
            "How long is the warranty?",
            "What warranty do I get?",
            "Is there a warranty?",
            "How many months of warranty are there?",
            "What is the warranty period?",
            "My item broke, is it under warranty?",
            "Tell me about the warranty.",
            "For how long are items covered?",
        ),
        heldout=(
            "How many months is the warranty?",
            "What is your warranty?",
            "How long are items under warranty?",
        ),
        answers=(
            "The warranty is {warranty_months} months.",
            "For all items the warranty is {warranty_months} months.",
        ),
    ),
    "account_summary": Phrases(
        train=(
            "Summarise my account.",
            "Give me a summary of my account.",
            "What do you know about me?",
            "What is on my account?",
            "Show me my account.",
            "Tell me about my account.",
        ),
        heldout=(
            "Give me an overview: what is on my account?",
            "Show me a summary of my account.",
        ),
        answers=("The customer {name} is a {tier} member with {points} points and {n_orders}.",),
    ),
    "account_unavailable": Phrases(
        train=(),
        heldout=(),
        answers=("I cannot see your account right now, please call us at {phone}.",),
    ),
    "store_unknown": Phrases(
        train=(
            "Hello!",
            "Hi there.",
            "Who are you?",
            "What can you do?",
            "How are you?",
            "Say hello.",
            "Tell me a joke.",
            "What is the capital of France?",
            "Write a poem about the sea.",
            "Explain what you do.",
            "What is 2 plus 2?",
        ),
        heldout=("Hello there!", "What do you do?", "Tell me a story."),
        answers=("I am a support desk, but I cannot see any facts about a store here.",),
    ),
}
